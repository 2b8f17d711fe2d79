// Package atomicfile writes files and folders that appear whole or not at all.
//
// A [File] is written under a temporary name beside its final one, synced and
// renamed by Commit. Until then nothing stands under the final name; a kill leaves
// only the temporary file, whose name begins with a dot and ends in ".tmp".
//
//	f, err := atomicfile.Create(path, false)
//	if err != nil {
//		return err
//	}
//	defer f.Abort() // does nothing after Commit
//	if _, err := f.Write(p); err != nil {
//		return err
//	}
//	return f.Commit()
//
// [NoSync] leaves the syncing out. A [Dir] is the same for a folder with everything in it. Neither is safe for
// concurrent use.
package atomicfile
