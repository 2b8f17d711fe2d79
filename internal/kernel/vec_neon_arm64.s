//go:build !noasm

#include "textflag.h"
#include "neon_arm64.h"

// The vector kernels of the NEON tier. All of them do n > 0 elements, a multiple of
// 16, in the order of operations that the exported functions state; nothing is fused
// that is not fused there. Pointers need no alignment. R5 counts down sixteens.

#define SIXTEENS(n) \
	MOVD n, R5     \
	LSR  $4, R5

#define AGAIN(loop) \
	SUBS $1, R5 \
	BNE  loop

#define LOAD(from, A, B, C, D) VLD1.P 64(from), [A.S4, B.S4, C.S4, D.S4]
#define STORE(to, A, B, C, D) VST1.P [A.S4, B.S4, C.S4, D.S4], 64(to)

// EACH does op(m, n, d) on four registers that follow each other, EACH1 with the same m.
#define EACH(op, m, n, d) \
	op((m), (n), (d))             \
	op((m) + 1, (n) + 1, (d) + 1) \
	op((m) + 2, (n) + 2, (d) + 2) \
	op((m) + 3, (n) + 3, (d) + 3)
#define EACH1(op, m, n, d) \
	op(m, (n), (d))         \
	op(m, (n) + 1, (d) + 1) \
	op(m, (n) + 2, (d) + 2) \
	op(m, (n) + 3, (d) + 3)
#define EACHTO(op, m, n, d) \
	op((m), n, (d))         \
	op((m) + 1, n, (d) + 1) \
	op((m) + 2, n, (d) + 2) \
	op((m) + 3, n, (d) + 3)

#define FMLA4(A, B, C, D, E, F, G, H, I, J, K, L) \
	VFMLA A.S4, E.S4, I.S4 \
	VFMLA B.S4, F.S4, J.S4 \
	VFMLA C.S4, G.S4, K.S4 \
	VFMLA D.S4, H.S4, L.S4

// func dotNEON(l *lanes, x, y *float32, n int)
TEXT ·dotNEON(SB), NOSPLIT, $0-32
	MOVD l+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	SIXTEENS(n+24(FP))
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]

loop:
	LOAD(R1, V4, V5, V6, V7)
	LOAD(R2, V8, V9, V10, V11)
	FMLA4(V8, V9, V10, V11, V4, V5, V6, V7, V0, V1, V2, V3)
	AGAIN(loop)
	VST1 [V0.S4, V1.S4, V2.S4, V3.S4], (R0)
	RET

// func dot3NEON(l *lanes, x, y, z *float32, n int): the sum of (x*y)*z
TEXT ·dot3NEON(SB), NOSPLIT, $0-40
	MOVD l+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	MOVD z+24(FP), R3
	SIXTEENS(n+32(FP))
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]

loop:
	LOAD(R1, V4, V5, V6, V7)
	LOAD(R2, V8, V9, V10, V11)
	EACH(FMUL4, 8, 4, 4)
	LOAD(R3, V8, V9, V10, V11)
	FMLA4(V8, V9, V10, V11, V4, V5, V6, V7, V0, V1, V2, V3)
	AGAIN(loop)
	VST1 [V0.S4, V1.S4, V2.S4, V3.S4], (R0)
	RET

// func sumNEON(l *lanes, x *float32, n int)
TEXT ·sumNEON(SB), NOSPLIT, $0-24
	MOVD l+0(FP), R0
	MOVD x+8(FP), R1
	SIXTEENS(n+16(FP))
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]

loop:
	LOAD(R1, V4, V5, V6, V7)
	EACH(FADD4, 4, 0, 0)
	AGAIN(loop)
	VST1 [V0.S4, V1.S4, V2.S4, V3.S4], (R0)
	RET

// func maxNEON(l *lanes, x *float32, n int): a NaN is not greater, and passed over
TEXT ·maxNEON(SB), NOSPLIT, $0-24
	MOVD l+0(FP), R0
	MOVD x+8(FP), R1
	SIXTEENS(n+16(FP))
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]

loop:
	LOAD(R1, V4, V5, V6, V7)
	EACH(FCMGT4, 0, 4, 8)
	VBIT V8.B16, V4.B16, V0.B16
	VBIT V9.B16, V5.B16, V1.B16
	VBIT V10.B16, V6.B16, V2.B16
	VBIT V11.B16, V7.B16, V3.B16
	AGAIN(loop)
	VST1 [V0.S4, V1.S4, V2.S4, V3.S4], (R0)
	RET

#define SQUARES(n, LO, HI) \
	FCVTL_S(n, 16)            \
	FCVTL2_S(n, 17)           \
	VFMLA V16.D2, V16.D2, LO.D2 \
	VFMLA V17.D2, V17.D2, HI.D2

// func sumSquares64NEON(l *[16]float64, x *float32, n int)
TEXT ·sumSquares64NEON(SB), NOSPLIT, $0-24
	MOVD l+0(FP), R0
	MOVD x+8(FP), R1
	SIXTEENS(n+16(FP))
	ADD  $64, R0, R2
	VLD1 (R0), [V0.D2, V1.D2, V2.D2, V3.D2]
	VLD1 (R2), [V4.D2, V5.D2, V6.D2, V7.D2]

loop:
	LOAD(R1, V8, V9, V10, V11)
	SQUARES(8, V0, V1)
	SQUARES(9, V2, V3)
	SQUARES(10, V4, V5)
	SQUARES(11, V6, V7)
	AGAIN(loop)
	VST1 [V0.D2, V1.D2, V2.D2, V3.D2], (R0)
	VST1 [V4.D2, V5.D2, V6.D2, V7.D2], (R2)
	RET

#define PRODUCTS(n, m, LO, HI) \
	FCVTL_S(n, 16)            \
	FCVTL2_S(n, 17)           \
	FCVTL_S(m, 18)            \
	FCVTL2_S(m, 19)           \
	VFMLA V16.D2, V18.D2, LO.D2 \
	VFMLA V17.D2, V19.D2, HI.D2

// func dot64NEON(l *[16]float64, x, y *float32, n int)
TEXT ·dot64NEON(SB), NOSPLIT, $0-32
	MOVD l+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R4
	SIXTEENS(n+24(FP))
	ADD  $64, R0, R2
	VLD1 (R0), [V0.D2, V1.D2, V2.D2, V3.D2]
	VLD1 (R2), [V4.D2, V5.D2, V6.D2, V7.D2]

loop:
	LOAD(R1, V8, V9, V10, V11)
	LOAD(R4, V12, V13, V14, V15)
	PRODUCTS(8, 12, V0, V1)
	PRODUCTS(9, 13, V2, V3)
	PRODUCTS(10, 14, V4, V5)
	PRODUCTS(11, 15, V6, V7)
	AGAIN(loop)
	VST1 [V0.D2, V1.D2, V2.D2, V3.D2], (R0)
	VST1 [V4.D2, V5.D2, V6.D2, V7.D2], (R2)
	RET

// func addNEON(dst, x *float32, n int)
TEXT ·addNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	SIXTEENS(n+16(FP))

loop:
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	LOAD(R1, V4, V5, V6, V7)
	EACH(FADD4, 4, 0, 0)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func subNEON(dst, x, y *float32, n int)
TEXT ·subNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	SIXTEENS(n+24(FP))

loop:
	LOAD(R1, V0, V1, V2, V3)
	LOAD(R2, V4, V5, V6, V7)
	EACH(FSUB4, 4, 0, 0)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func mulNEON(dst, x, y *float32, n int)
TEXT ·mulNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	SIXTEENS(n+24(FP))

loop:
	LOAD(R1, V0, V1, V2, V3)
	LOAD(R2, V4, V5, V6, V7)
	EACH(FMUL4, 4, 0, 0)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func scaleNEON(dst, x *float32, n int, a float32)
TEXT ·scaleNEON(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	SIXTEENS(n+16(FP))
	FMOVS a+24(FP), F7
	VDUP  V7.S[0], V7.S4

loop:
	LOAD(R1, V0, V1, V2, V3)
	EACH1(FMUL4, 7, 0, 0)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func axpyNEON(dst, x *float32, n int, a float32)
TEXT ·axpyNEON(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	SIXTEENS(n+16(FP))
	FMOVS a+24(FP), F8
	VDUP  V8.S[0], V8.S4

loop:
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	LOAD(R1, V4, V5, V6, V7)
	FMLA4(V8, V8, V8, V8, V4, V5, V6, V7, V0, V1, V2, V3)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func softcapBackwardNEON(dx, dy, y *float32, n int, cap float32)
TEXT ·softcapBackwardNEON(SB), NOSPLIT, $0-36
	MOVD  dx+0(FP), R0
	MOVD  dy+8(FP), R1
	MOVD  y+16(FP), R2
	SIXTEENS(n+24(FP))
	FMOVS cap+32(FP), F16
	VDUP  V16.S[0], V16.S4
	FMOVS $1.0, F17
	VDUP  V17.S[0], V17.S4

loop:
	LOAD(R2, V0, V1, V2, V3)
	LOAD(R1, V4, V5, V6, V7)
	EACH1(FDIV4, 16, 0, 0)
	EACH(FMUL4, 0, 0, 0)
	EACHTO(FSUB4, 0, 17, 0)
	EACH(FMUL4, 0, 4, 0)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func softmaxBackwardNEON(dx, p, dp *float32, n int, d float32)
TEXT ·softmaxBackwardNEON(SB), NOSPLIT, $0-36
	MOVD  dx+0(FP), R0
	MOVD  p+8(FP), R1
	MOVD  dp+16(FP), R2
	SIXTEENS(n+24(FP))
	FMOVS d+32(FP), F16
	VDUP  V16.S[0], V16.S4

loop:
	LOAD(R1, V0, V1, V2, V3)
	LOAD(R2, V4, V5, V6, V7)
	EACH1(FSUB4, 16, 4, 4)
	EACH(FMUL4, 0, 4, 0)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func normNEON(y, x, w *float32, n int, r float32)
TEXT ·normNEON(SB), NOSPLIT, $0-36
	MOVD  y+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  w+16(FP), R2
	SIXTEENS(n+24(FP))
	FMOVS r+32(FP), F16
	VDUP  V16.S[0], V16.S4

loop:
	LOAD(R1, V0, V1, V2, V3)
	LOAD(R2, V4, V5, V6, V7)
	EACH1(FMUL4, 16, 0, 0)
	EACH(FMUL4, 4, 0, 0)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func normBackwardNEON(dx, dy, x, w *float32, n int, r, c float32, acc bool): w may be nil
TEXT ·normBackwardNEON(SB), NOSPLIT, $0-49
	MOVD  dx+0(FP), R0
	MOVD  dy+8(FP), R1
	MOVD  x+16(FP), R2
	MOVD  w+24(FP), R3
	SIXTEENS(n+32(FP))
	FMOVS r+40(FP), F16
	VDUP  V16.S[0], V16.S4
	FMOVS c+44(FP), F17
	VDUP  V17.S[0], V17.S4
	MOVBU acc+48(FP), R6

loop:
	LOAD(R1, V0, V1, V2, V3)
	CBZ  R3, ones
	LOAD(R3, V4, V5, V6, V7)
	EACH(FMUL4, 4, 0, 0)

ones:
	LOAD(R2, V4, V5, V6, V7)
	EACH1(FMUL4, 17, 4, 4)
	EACH(FSUB4, 4, 0, 0)
	EACH1(FMUL4, 16, 0, 0)
	CBZ  R6, store
	VLD1 (R0), [V4.S4, V5.S4, V6.S4, V7.S4]
	EACH(FADD4, 4, 0, 0)

store:
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// TURN is a, b = a*cos - b*sin, b*cos + a*sin in the registers of these numbers, s
// being already the sine of the way it turns. p, q and t are used.
#define TURN(a, b, c, s, p, q, t) \
	FMUL4(c, a, p) \
	FMUL4(s, b, q) \
	FSUB4(q, p, p) \
	FMUL4(c, b, q) \
	FMUL4(s, a, t) \
	FADD4(t, q, b) \
	ORR16(p, p, a)

#define TURNSIGN(V) VEOR V31.B16, V.B16, V.B16

// func ropeHalvesNEON(a, b, cos, sin *float32, n int, sign uint32)
TEXT ·ropeHalvesNEON(SB), NOSPLIT, $0-44
	MOVD  a+0(FP), R0
	MOVD  b+8(FP), R1
	MOVD  cos+16(FP), R2
	MOVD  sin+24(FP), R3
	SIXTEENS(n+32(FP))
	FMOVS sign+40(FP), F31
	VDUP  V31.S[0], V31.S4

loop:
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1 (R1), [V4.S4, V5.S4, V6.S4, V7.S4]
	LOAD(R2, V8, V9, V10, V11)
	LOAD(R3, V12, V13, V14, V15)
	TURNSIGN(V12)
	TURNSIGN(V13)
	TURNSIGN(V14)
	TURNSIGN(V15)
	TURN(0, 4, 8, 12, 16, 17, 18)
	TURN(1, 5, 9, 13, 19, 20, 21)
	TURN(2, 6, 10, 14, 16, 17, 18)
	TURN(3, 7, 11, 15, 19, 20, 21)
	STORE(R0, V0, V1, V2, V3)
	STORE(R1, V4, V5, V6, V7)
	AGAIN(loop)
	RET

// func ropePairsNEON(x, cos, sin *float32, n int, sign uint32): n pairs
TEXT ·ropePairsNEON(SB), NOSPLIT, $0-36
	MOVD  x+0(FP), R0
	MOVD  cos+8(FP), R2
	MOVD  sin+16(FP), R3
	MOVD  n+24(FP), R5
	LSR   $2, R5
	FMOVS sign+32(FP), F31
	VDUP  V31.S[0], V31.S4

loop:
	VLD2    (R0), [V0.S4, V1.S4]
	FMOVQ.P 16(R2), F2
	FMOVQ.P 16(R3), F3
	TURNSIGN(V3)
	TURN(0, 1, 2, 3, 4, 5, 6)
	VST2.P  [V0.S4, V1.S4], 32(R0)
	AGAIN(loop)
	RET

// func f16ToF32NEON(dst *float32, src *byte, n int)
TEXT ·f16ToF32NEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	SIXTEENS(n+16(FP))

loop:
	VLD1.P 32(R1), [V4.H8, V5.H8]
	FCVTL_H(4, 0)
	FCVTL2_H(4, 1)
	FCVTL_H(5, 2)
	FCVTL2_H(5, 3)
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// func f32ToF16NEON(dst *byte, src *float32, n int)
TEXT ·f32ToF16NEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	SIXTEENS(n+16(FP))

loop:
	LOAD(R1, V0, V1, V2, V3)
	FCVTN_H(0, 4)
	FCVTN2_H(1, 4)
	FCVTN_H(2, 5)
	FCVTN2_H(3, 5)
	VST1.P [V4.H8, V5.H8], 32(R0)
	AGAIN(loop)
	RET

// func bf16ToF32NEON(dst *float32, src *byte, n int)
TEXT ·bf16ToF32NEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	SIXTEENS(n+16(FP))
	VEOR V6.B16, V6.B16, V6.B16

loop:
	VLD1.P 32(R1), [V4.H8, V5.H8]
	VZIP1  V4.H8, V6.H8, V0.H8
	VZIP2  V4.H8, V6.H8, V1.H8
	VZIP1  V5.H8, V6.H8, V2.H8
	VZIP2  V5.H8, V6.H8, V3.H8
	STORE(R0, V0, V1, V2, V3)
	AGAIN(loop)
	RET

// BF16 leaves the bfloat16 nearest to each of A in the upper halves of its lanes. V16
// to V20 hold 1, 0x7fff, 0x7fffffff, the bits of infinity and the mark of a quiet NaN; a is A's number.
#define BF16(a, A, T, U) \
	VUSHR $16, A.S4, T.S4         \
	VAND  V16.B16, T.B16, T.B16   \
	VADD  V17.S4, T.S4, T.S4      \
	VADD  A.S4, T.S4, T.S4        \
	VAND  V18.B16, A.B16, U.B16   \
	VORR  V20.B16, A.B16, A.B16   \
	CMGT4(19, 21, 21)             \
	VBSL  T.B16, A.B16, U.B16     \
	VORR  U.B16, U.B16, A.B16

// func f32ToBF16NEON(dst *byte, src *float32, n int)
TEXT ·f32ToBF16NEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	SIXTEENS(n+16(FP))
	MOVW $1, R6
	VDUP R6, V16.S4
	MOVW $0x7fff, R6
	VDUP R6, V17.S4
	MOVW $0x7fffffff, R6
	VDUP R6, V18.S4
	MOVW $0x7f800000, R6
	VDUP R6, V19.S4
	MOVW $0x400000, R6
	VDUP R6, V20.S4

loop:
	LOAD(R1, V0, V1, V2, V3)
	BF16(0, V0, V22, V21)
	BF16(1, V1, V22, V21)
	BF16(2, V2, V22, V21)
	BF16(3, V3, V22, V21)
	VUZP2  V1.H8, V0.H8, V0.H8
	VUZP2  V3.H8, V2.H8, V1.H8
	VST1.P [V0.H8, V1.H8], 32(R0)
	AGAIN(loop)
	RET

// func adamWNEON(p, m, v, grad *float32, n int, s *AdamWStep)
TEXT ·adamWNEON(SB), NOSPLIT, $0-48
	MOVD p+0(FP), R0
	MOVD m+8(FP), R1
	MOVD v+16(FP), R2
	MOVD grad+24(FP), R3
	MOVD n+32(FP), R5
	LSR  $2, R5
	MOVD s+40(FP), R6
	VLD1R.P 4(R6), [V16.S4] // Keep
	VLD1R.P 4(R6), [V17.S4] // W1
	VLD1R.P 4(R6), [V18.S4] // B2
	VLD1R.P 4(R6), [V19.S4] // W2
	VLD1R.P 4(R6), [V20.S4] // Root2
	VLD1R.P 4(R6), [V21.S4] // Eps
	VLD1R.P 4(R6), [V22.S4] // Size

loop:
	FMOVQ.P 16(R3), F0
	FMOVQ   (R1), F1
	FMOVQ   (R2), F2
	FMOVQ   (R0), F3
	FSUB4(1, 0, 4)
	FMUL4(17, 4, 4)
	FADD4(4, 1, 1)  // m
	FMOVQ.P F1, 16(R1)
	FMUL4(19, 0, 4)
	FMUL4(0, 4, 4)
	FMUL4(18, 2, 2)
	FADD4(4, 2, 2)  // v
	FMOVQ.P F2, 16(R2)
	FSQRT4(2, 2)
	FDIV4(20, 2, 2)
	FADD4(21, 2, 2)
	FDIV4(2, 1, 1)
	FMUL4(22, 1, 1)
	FMUL4(16, 3, 3)
	FSUB4(1, 3, 3)
	FMOVQ.P F3, 16(R0)
	AGAIN(loop)
	RET
