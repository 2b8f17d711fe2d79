// Package htmlreport makes pages that are one file: no script, no font, no picture from
// outside, light or dark as the reader's system is. A [Page] is sections of words,
// [Table], [HeatMap], [Chart] and [Pre] parts; whatever text goes in is escaped.
//
// The same page is the same bytes: it has no date and no random number of its own. A Page is
// used by one goroutine at a time. Numbers that are NaN or infinite are shown as missing.
package htmlreport
