//go:build !(amd64 || arm64) || noasm

package kernel

func mulAddVec(dst, x, y []float32) int                      { return 0 }
func dotColumnsVec(dst []float32, a, b Mat) int              { return 0 }
func axpyColumnsVec(dst Mat, f []float32, a Mat) int         { return 0 }
func productColumnsVec(dst Mat, f []float32, x, y Mat) int   { return 0 }
func rangeColumnsVec(least, most, f []float32, a, b Mat) int { return 0 }
func mixRowsVec(dst, f []float32, x Mat) int                 { return 0 }
func squareColumnsVec(dst Mat, f []float32, z Mat) int       { return 0 }
func outsideVec(dst []float32, a float32, x, y []float32, f float32, limit []float32) (int, uint64) {
	return 0, 0
}
