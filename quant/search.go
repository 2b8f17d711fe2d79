package quant

import "math"

// The searches that ggml's encoders share: given a group of values, find codes and
// a scale (and a minimum) with the least weighted squared error among a few tries.
// They are ggml's make_*_quants, operation for operation: the order of every sum
// and every rounding decides bytes. One group depends on no other, so a vector
// form can hold one in each lane.

// groupMaxEps is the largest magnitude that still counts as an all-zero group.
const groupMaxEps = 1e-15

// nearestInt rounds to the nearest integer, ties to even, by adding a number whose
// last bit is worth one. Beyond 2^22 the result is what the bits say, as in ggml.
func nearestInt(f float32) int {
	bits := math.Float32bits(float32(f) + 12582912)
	return int(bits&0x007fffff) - 0x00400000
}

// truncInt is C's conversion to int: what does not fit gives the smallest int.
func truncInt(f float32) int32 {
	if f > -0x1p31 && f < 0x1p31 {
		return int32(f)
	}
	return math.MinInt32
}

// roundInt rounds to the nearest integer, halves away from zero.
func roundInt(f float32) int32 {
	// The largest float below one half: adding one half itself would carry 0.49999997 to 1.
	return truncInt(f + math.Float32frombits(0x3effffff|math.Float32bits(f)&0x80000000))
}

func abs32(f float32) float32 { return math.Float32frombits(math.Float32bits(f) &^ 0x80000000) }

func sqrt32(f float32) float32 { return float32(math.Sqrt(float64(f))) }

func clampInt(v, lo, hi int) int { return max(lo, min(hi, v)) }

// sumSquares adds the squares of x in order.
func sumSquares(x []float32) float32 {
	var sum float32
	for _, v := range x {
		sum += float32(v * v)
	}
	return sum
}

// importance fills w with the weights of ggml's encoders: column importance times
// the magnitude of the value, softened by the mean square sigma2.
func importance(w, x, columns []float32, sigma2 float32) {
	columns, w = columns[:len(x)], w[:len(x)]
	for i, v := range x {
		w[i] = columns[i] * sqrt32(float32(sigma2)+float32(v*v))
	}
}

// extreme gives the value of the largest magnitude (the first such), and the magnitude.
func extreme(x []float32) (top, amax float32) {
	for _, v := range x {
		if a := abs32(v); a > amax {
			amax, top = a, v
		}
	}
	return top, amax
}

// searchScale finds a scale for codes -nmax to nmax-1 (make_qx_quants, squared
// error). codes receives code + nmax. Without weights a value weighs its square.
func searchScale(codes []uint8, x, weights []float32, nmax int) float32 {
	codes = codes[:len(x)]
	top, amax := extreme(x)
	if amax < groupMaxEps {
		clear(codes)
		return 0
	}
	iscale := float32(-nmax) / top
	sumlx, suml2 := fitScale(x, weights, iscale, nmax)
	roundCodes(codes, x, iscale, nmax)
	var scale float32
	if suml2 != 0 {
		scale = sumlx / suml2
	}
	best := scale * sumlx
	for is := -9; is <= 9; is++ {
		if is == 0 {
			continue
		}
		iscale = -(float32(nmax) + float32(0.1*float32(is))) / top
		sumlx, suml2 = fitScale(x, weights, iscale, nmax)
		if suml2 > 0 && sumlx*sumlx > best*suml2 {
			roundCodes(codes, x, iscale, nmax)
			scale = sumlx / suml2
			best = scale * sumlx
		}
	}
	return scale
}

// fitScale sums weight*x*code and weight*code*code for the codes that iscale gives.
func fitScale(x, weights []float32, iscale float32, nmax int) (sumlx, suml2 float32) {
	if weights == nil {
		for _, v := range x {
			l := float32(clampInt(nearestInt(iscale*v), -nmax, nmax-1))
			w := v * v
			sumlx += float32(w * v * l)
			suml2 += float32(w * l * l)
		}
		return sumlx, suml2
	}
	weights = weights[:len(x)]
	for i, v := range x {
		l := float32(clampInt(nearestInt(iscale*v), -nmax, nmax-1))
		w := weights[i]
		sumlx += float32(w * v * l)
		suml2 += float32(w * l * l)
	}
	return sumlx, suml2
}

func roundCodes(codes []uint8, x []float32, iscale float32, nmax int) {
	for i, v := range x {
		codes[i] = uint8(nmax + clampInt(nearestInt(iscale*v), -nmax, nmax-1))
	}
}

// searchScaleMin finds a scale and a minimum of at most zero for codes 0 to nmax
// (make_qkx2_quants and make_qkx3_quants). It tries nstep+1 first guesses, from
// nmax+rmin levels over the range on, rdelta apart. With mad the error is the absolute one,
// else the square. It returns the scale and the minimum with its sign turned.
func searchScaleMin(codes []uint8, x, weights []float32, nmax int, rmin, rdelta float32, nstep int, mad bool) (scale, theMin float32) {
	var tryBuf [32]uint8
	n := len(x)
	codes, weights, try := codes[:n], weights[:n], tryBuf[:n]
	lo, hi := x[0], x[0]
	sumW := weights[0]
	sumX := float32(sumW * x[0])
	for i := 1; i < n; i++ {
		v, w := x[i], weights[i]
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
		sumW += w
		sumX += float32(w * v)
	}
	if lo > 0 {
		lo = 0
	}
	if hi <= lo {
		clear(codes)
		return 0, -lo
	}
	iscale := float32(nmax) / (hi - lo)
	scale = 1 / iscale
	for i, v := range x {
		codes[i] = uint8(clampInt(nearestInt(iscale*(v-lo)), 0, nmax))
	}
	best := scaleMinError(codes, x, weights, scale, lo, mad)
	for is := 0; is <= nstep; is++ {
		// From here on the range begins at the best minimum so far.
		iscale = (rmin + float32(rdelta*float32(is)) + float32(nmax)) / (hi - lo)
		var sumL, sumL2, sumXL float32
		for i, v := range x {
			l := clampInt(nearestInt(iscale*(v-lo)), 0, nmax)
			try[i] = uint8(l)
			wl := float32(weights[i] * float32(l))
			sumL += wl
			sumL2 += float32(wl * float32(l))
			sumXL += float32(wl * v)
		}
		det := float32(sumW*sumL2) - float32(sumL*sumL)
		if !(det > 0) {
			continue
		}
		thisScale := (float32(sumW*sumXL) - float32(sumX*sumL)) / det
		thisMin := (float32(sumL2*sumX) - float32(sumL*sumXL)) / det
		if thisMin > 0 {
			thisMin = 0
			thisScale = sumXL / sumL2
		}
		if err := scaleMinError(try, x, weights, thisScale, thisMin, mad); err < best {
			copy(codes, try)
			best, scale, lo = err, thisScale, thisMin
		}
	}
	return scale, -lo
}

func scaleMinError(codes []uint8, x, weights []float32, scale, lo float32, mad bool) (sum float32) {
	codes, weights = codes[:len(x)], weights[:len(x)]
	if mad {
		for i, v := range x {
			diff := float32(scale*float32(codes[i])) + lo - v
			sum += float32(weights[i] * abs32(diff))
		}
		return sum
	}
	for i, v := range x {
		diff := float32(scale*float32(codes[i])) + lo - v
		sum += float32(weights[i] * float32(diff*diff))
	}
	return sum
}

// searchPositive finds a scale for codes 0 to nmax of values that are not negative
// (make_qp_quants): the scales and minimums of a super-block, or magnitudes.
func searchPositive(codes []uint8, x, weights []float32, nmax int) float32 {
	codes, weights = codes[:len(x)], weights[:len(x)]
	var hi float32
	for _, v := range x {
		hi = max(hi, v)
	}
	if hi < groupMaxEps {
		clear(codes)
		return 0
	}
	iscale := float32(nmax) / hi
	scale := 1 / iscale
	var best float32
	for i, v := range x {
		codes[i] = uint8(nearestInt(iscale * v))
		diff := v - float32(scale*float32(codes[i]))
		best += float32(weights[i] * diff * diff)
	}
	for is := -4; is <= 4; is++ {
		if is == 0 {
			continue
		}
		tryIscale := (float32(0.1*float32(is)) + float32(nmax)) / hi
		tryScale := 1 / tryIscale
		var err float32
		for i, v := range x {
			l := min(nmax, nearestInt(tryIscale*v))
			diff := v - float32(tryScale*float32(l))
			err += float32(weights[i] * diff * diff)
		}
		if err < best {
			best, iscale = err, tryIscale
		}
	}
	var sumlx, suml2 float32
	for i, v := range x {
		l := min(nmax, nearestInt(iscale*v))
		codes[i] = uint8(l)
		w := weights[i]
		sumlx += float32(w * v * float32(l))
		suml2 += float32(w * float32(l) * float32(l))
	}
	for range 5 {
		changed := false
		for i, v := range x {
			w, l := weights[i], float32(codes[i])
			slx := sumlx - float32(w*v*l)
			sl2 := suml2 - float32(w*l*l)
			if !(slx > 0 && sl2 > 0) {
				continue
			}
			next := min(nmax, nearestInt(v*sl2/slx))
			if next == int(codes[i]) {
				continue
			}
			slx += float32(w * v * float32(next))
			sl2 += float32(w * float32(next) * float32(next))
			if slx*slx*suml2 > sumlx*sumlx*sl2 {
				codes[i] = uint8(next)
				sumlx, suml2 = slx, sl2
				changed = true
			}
		}
		if !changed {
			break
		}
	}
	if suml2 > 0 {
		return sumlx / suml2
	}
	return 0
}

// searchDescent finds a scale for codes -nmax to nmax-1 by coordinate descent
// (make_q3_quants). codes receives code + nmax.
func searchDescent(codes []uint8, x []float32, nmax int) float32 {
	codes = codes[:len(x)]
	top, amax := extreme(x)
	if amax < groupMaxEps {
		clear(codes)
		return 0
	}
	iscale := float32(-nmax) / top
	var sumlx, suml2 float32
	for i, v := range x {
		l := clampInt(nearestInt(iscale*v), -nmax, nmax-1)
		codes[i] = uint8(l + nmax)
		w := v * v
		sumlx += float32(w * v * float32(l))
		suml2 += float32(w * float32(l) * float32(l))
	}
	for range 5 {
		changed := false
		for i, v := range x {
			w, l := v*v, float32(int(codes[i])-nmax)
			slx := sumlx - float32(w*v*l)
			if !(slx > 0) {
				continue
			}
			sl2 := suml2 - float32(w*l*l)
			next := clampInt(nearestInt(v*sl2/slx), -nmax, nmax-1)
			if next == int(codes[i])-nmax {
				continue
			}
			slx += float32(w * v * float32(next))
			sl2 += float32(w * float32(next) * float32(next))
			if sl2 > 0 && slx*slx*suml2 > sumlx*sumlx*sl2 {
				codes[i] = uint8(next + nmax)
				sumlx, suml2 = slx, sl2
				changed = true
			}
		}
		if !changed {
			break
		}
	}
	if suml2 > 0 {
		return sumlx / suml2
	}
	return 0
}
