//go:build !noasm

#include "textflag.h"

#define V0 Y0
#define V1 Y1
#define V2 Y2
#define V3 Y3
#define V4 Y4
#define V5 Y5
#define V6 Y6
#define V7 Y7
#define V8 Y8
#define V9 Y9
#define V10 Y10
#define V11 Y11
#define V12 Y12
#define V13 Y13
#define V14 Y14
#define V15 Y15
#define M1 Y15
#define M2 Y12

#define FN_weighimportance ·weighImportanceAVX2
#define FN_weighmean ·weighMeanAVX2
#define FN_weighabs ·weighAbsAVX2
#define FN_weighsquare ·weighSquareAVX2
#define FN_searchmin ·searchMinAVX2
#define FN_searchscale ·searchScaleAVX2
#define FN_searchdescent ·searchDescentAVX2
#define FN_searchpositive ·searchPositiveAVX2
#define FN_requantize ·requantizeAVX2
#define FN_roundcodes ·roundCodesAVX2
#define FN_searchiq4 ·searchIQ4AVX2
#define FN_codesiq4 ·codesIQ4AVX2
#define FN_scan ·latticeScanAVX2
#define FN_round ·latticeRoundAVX2
#define FN_fit ·latticeFitAVX2
#define WIDTH 8

#include "simd_enc_amd64.h"
#include "simd_encpos_amd64.h"
#include "simd_enciq_amd64.h"
#include "simd_enclat_amd64.h"
