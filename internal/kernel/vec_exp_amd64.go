//go:build amd64 && !noasm

package kernel

import "github.com/graft-lora/graft/internal/cpu"

// The operations that take an exponential are slow enough in Go for the last
// elements of a row to matter: they are done in a vector of their own.

// padded copies less than a vector's elements, zeros after them.
func padded(x []float32) (t lanes) {
	copy(t[:], x)
	return t
}

func expVec(dst, x []float32, shift float32) int {
	n, wide := whole(len(x))
	if n > 0 {
		expTier(wide, &dst[0], &x[0], n, shift)
	}
	if n == len(x) || cpu.Current() == cpu.Generic {
		return n
	}
	var dstT lanes
	xT := padded(x[n:])
	expTier(wide, &dstT[0], &xT[0], len(lanes{}), shift)
	copy(dst[n:], dstT[:])
	return len(x)
}

func expTier(wide bool, dst, x *float32, n int, shift float32) {
	if wide {
		expAVX512(dst, x, n, shift)
	} else {
		expAVX2(dst, x, n, shift)
	}
}

func sigmoidVec(dst, x []float32) int {
	n, wide := whole(len(x))
	if n > 0 {
		sigmoidTier(wide, &dst[0], &x[0], n)
	}
	if n == len(x) || cpu.Current() == cpu.Generic {
		return n
	}
	var dstT lanes
	xT := padded(x[n:])
	sigmoidTier(wide, &dstT[0], &xT[0], len(lanes{}))
	copy(dst[n:], dstT[:])
	return len(x)
}

func sigmoidTier(wide bool, dst, x *float32, n int) {
	if wide {
		sigmoidAVX512(dst, x, n)
	} else {
		sigmoidAVX2(dst, x, n)
	}
}

func softcapVec(y, x []float32, cap float32) int {
	n, wide := whole(len(x))
	if n > 0 {
		softcapTier(wide, &y[0], &x[0], n, cap)
	}
	if n == len(x) || cpu.Current() == cpu.Generic {
		return n
	}
	var yT lanes
	xT := padded(x[n:])
	softcapTier(wide, &yT[0], &xT[0], len(lanes{}), cap)
	copy(y[n:], yT[:])
	return len(x)
}

func softcapTier(wide bool, y, x *float32, n int, cap float32) {
	if wide {
		softcapAVX512(y, x, n, cap)
	} else {
		softcapAVX2(y, x, n, cap)
	}
}

func siluMulVec(y, gate, up []float32) int {
	n, wide := whole(len(gate))
	if n > 0 {
		siluMulTier(wide, &y[0], &gate[0], &up[0], n)
	}
	if n == len(gate) || cpu.Current() == cpu.Generic {
		return n
	}
	var yT lanes
	gateT := padded(gate[n:])
	upT := padded(up[n:])
	siluMulTier(wide, &yT[0], &gateT[0], &upT[0], len(lanes{}))
	copy(y[n:], yT[:])
	return len(gate)
}

func siluMulTier(wide bool, y, gate, up *float32, n int) {
	if wide {
		siluMulAVX512(y, gate, up, n)
	} else {
		siluMulAVX2(y, gate, up, n)
	}
}

func geluMulVec(y, gate, up []float32) int {
	n, wide := whole(len(gate))
	if n > 0 {
		geluMulTier(wide, &y[0], &gate[0], &up[0], n)
	}
	if n == len(gate) || cpu.Current() == cpu.Generic {
		return n
	}
	var yT lanes
	gateT := padded(gate[n:])
	upT := padded(up[n:])
	geluMulTier(wide, &yT[0], &gateT[0], &upT[0], len(lanes{}))
	copy(y[n:], yT[:])
	return len(gate)
}

func geluMulTier(wide bool, y, gate, up *float32, n int) {
	if wide {
		geluMulAVX512(y, gate, up, n)
	} else {
		geluMulAVX2(y, gate, up, n)
	}
}

func siluMulBackwardVec(dgate, dup, dy, gate, up []float32) int {
	n, wide := whole(len(dy))
	if n > 0 {
		siluMulBackwardTier(wide, &dgate[0], &dup[0], &dy[0], &gate[0], &up[0], n)
	}
	if n == len(dy) || cpu.Current() == cpu.Generic {
		return n
	}
	var dgateT, dupT lanes
	dyT := padded(dy[n:])
	gateT := padded(gate[n:])
	upT := padded(up[n:])
	siluMulBackwardTier(wide, &dgateT[0], &dupT[0], &dyT[0], &gateT[0], &upT[0], len(lanes{}))
	copy(dgate[n:], dgateT[:])
	copy(dup[n:], dupT[:])
	return len(dy)
}

func siluMulBackwardTier(wide bool, dgate, dup, dy, gate, up *float32, n int) {
	if wide {
		siluMulBackwardAVX512(dgate, dup, dy, gate, up, n)
	} else {
		siluMulBackwardAVX2(dgate, dup, dy, gate, up, n)
	}
}

func geluMulBackwardVec(dgate, dup, dy, gate, up []float32) int {
	n, wide := whole(len(dy))
	if n > 0 {
		geluMulBackwardTier(wide, &dgate[0], &dup[0], &dy[0], &gate[0], &up[0], n)
	}
	if n == len(dy) || cpu.Current() == cpu.Generic {
		return n
	}
	var dgateT, dupT lanes
	dyT := padded(dy[n:])
	gateT := padded(gate[n:])
	upT := padded(up[n:])
	geluMulBackwardTier(wide, &dgateT[0], &dupT[0], &dyT[0], &gateT[0], &upT[0], len(lanes{}))
	copy(dgate[n:], dgateT[:])
	copy(dup[n:], dupT[:])
	return len(dy)
}

func geluMulBackwardTier(wide bool, dgate, dup, dy, gate, up *float32, n int) {
	if wide {
		geluMulBackwardAVX512(dgate, dup, dy, gate, up, n)
	} else {
		geluMulBackwardAVX2(dgate, dup, dy, gate, up, n)
	}
}
