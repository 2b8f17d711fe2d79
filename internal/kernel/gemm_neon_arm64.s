//go:build !noasm

#include "textflag.h"
#include "neon_arm64.h"

// The tiles of the NEON tier; see type tile for what they compute. A row of the tile
// is four registers, V8 up; a step of k reads 16 elements of b into V0 to V3 and
// multiplies them by one element of a for each row.
//
//	R0  c        R3  ldc
//	R1  a        R6, R7, R8  ai, 2·ai, 3·ai    R9  ak
//	R2  b        R4  bk       R5  k            all strides in bytes

#define ARGS \
	MOVD  t+0(FP), R10   \
	MOVD  0(R10), R0     \
	MOVD  24(R10), R1    \
	MOVD  48(R10), R2    \
	MOVD  72(R10), R3    \
	MOVD  80(R10), R6    \
	MOVD  88(R10), R9    \
	MOVD  96(R10), R4    \
	MOVD  104(R10), R5   \
	MOVBU 112(R10), R11  \
	LSL   $2, R3         \
	LSL   $2, R4         \
	LSL   $2, R6         \
	LSL   $2, R9         \
	LSL   $1, R6, R7     \
	ADD   R6, R7, R8     \
	MOVD  R0, R12

// TURNARGS are those of the functions that turn and copy.
#define TURNARGS \
	MOVD dst_base+0(FP), R0  \
	MOVD src_base+24(FP), R1 \
	MOVD stride+48(FP), R6   \
	LSL  $2, R6

#define ZERO(A) VEOR A.B16, A.B16, A.B16
#define ZERO4(A, B, C, D) ZERO(A); ZERO(B); ZERO(C); ZERO(D)

// LOADC reads a row of c at R12 and goes to the next, STOREC writes one at R0.
#define LOADC(A, B, C, D) \
	FLDPQ (R12), (A, B)   \
	FLDPQ 32(R12), (C, D) \
	ADD   R3, R12

#define STOREC(A, B, C, D) \
	FSTPQ (A, B), (R0)   \
	FSTPQ (C, D), 32(R0) \
	ADD   R3, R0

// LOADB reads a row of b.
#define LOADB \
	FLDPQ (R2), (F0, F1)   \
	FLDPQ 32(R2), (F2, F3) \
	ADD   R4, R2

// ROW does a row of the tile, whose sums are d to d+3, with element e of Vm.
#define ROW(m, e, d) \
	FMLAE(m, e, 0, (d))   \
	FMLAE(m, e, 1, (d)+1) \
	FMLAE(m, e, 2, (d)+2) \
	FMLAE(m, e, 3, (d)+3)

#define ROWS6(m0, e0, m1, e1, m2, e2, m3, e3, m4, e4, m5, e5) \
	ROW(m0, e0, 8)  \
	ROW(m1, e1, 12) \
	ROW(m2, e2, 16) \
	ROW(m3, e3, 20) \
	ROW(m4, e4, 24) \
	ROW(m5, e5, 28)

#define BEGIN6 \
	ARGS                            \
	CBZ R11, zero                   \
	LOADC(F8, F9, F10, F11)         \
	LOADC(F12, F13, F14, F15)       \
	LOADC(F16, F17, F18, F19)       \
	LOADC(F20, F21, F22, F23)       \
	LOADC(F24, F25, F26, F27)       \
	LOADC(F28, F29, F30, F31)       \
	B   begin                       \
zero:                               \
	ZERO4(V8, V9, V10, V11)         \
	ZERO4(V12, V13, V14, V15)       \
	ZERO4(V16, V17, V18, V19)       \
	ZERO4(V20, V21, V22, V23)       \
	ZERO4(V24, V25, V26, V27)       \
	ZERO4(V28, V29, V30, V31)       \
begin:

#define END6 \
	STOREC(F8, F9, F10, F11)   \
	STOREC(F12, F13, F14, F15) \
	STOREC(F16, F17, F18, F19) \
	STOREC(F20, F21, F22, F23) \
	STOREC(F24, F25, F26, F27) \
	STOREC(F28, F29, F30, F31) \
	RET

// func tile6x16Packed(t *tile)
//
// The left matrix is packed: ai is 1 and ak 6, so that twelve elements that touch are
// two steps of k. Per step, 24 multiply-adds for 2 loads of pairs and 1.5 of a.
TEXT ·tile6x16Packed(SB), NOSPLIT, $0-8
	BEGIN6
	SUBS $2, R5
	BLT  last

loop:
	FLDPQ (R1), (F4, F5)
	FMOVQ 32(R1), F6
	ADD   $48, R1
	LOADB
	ROWS6(4, 0, 4, 1, 4, 2, 4, 3, 5, 0, 5, 1)
	LOADB
	ROWS6(5, 2, 5, 3, 6, 0, 6, 1, 6, 2, 6, 3)
	SUBS  $2, R5
	BGE   loop

last:
	TBZ   $0, R5, done
	FMOVQ (R1), F4
	FMOVD 16(R1), F5
	LOADB
	ROWS6(4, 0, 4, 1, 4, 2, 4, 3, 5, 0, 5, 1)

done:
	END6

// func tile6x16(t *tile)
//
// Any strides: each row's element is read alone.
TEXT ·tile6x16(SB), NOSPLIT, $0-8
	BEGIN6
	ADD R8, R1, R13 // a + 3 rows

loop:
	FMOVS (R1), F4
	FMOVS (R1)(R6), F5
	FMOVS (R1)(R7), F6
	LOADB
	ROW(4, 0, 8)
	FMOVS (R13), F4
	ROW(5, 0, 12)
	FMOVS (R13)(R6), F5
	ROW(6, 0, 16)
	FMOVS (R13)(R7), F6
	ADD   R9, R1
	ADD   R9, R13
	ROW(4, 0, 20)
	ROW(5, 0, 24)
	ROW(6, 0, 28)
	SUBS  $1, R5
	BNE   loop
	END6

// func tile4x16(t *tile)
TEXT ·tile4x16(SB), NOSPLIT, $0-8
	ARGS
	CBZ R11, zero
	LOADC(F8, F9, F10, F11)
	LOADC(F12, F13, F14, F15)
	LOADC(F16, F17, F18, F19)
	LOADC(F20, F21, F22, F23)
	B   loop

zero:
	ZERO4(V8, V9, V10, V11)
	ZERO4(V12, V13, V14, V15)
	ZERO4(V16, V17, V18, V19)
	ZERO4(V20, V21, V22, V23)

loop:
	FMOVS (R1), F4
	FMOVS (R1)(R6), F5
	FMOVS (R1)(R7), F6
	FMOVS (R1)(R8), F7
	ADD   R9, R1
	LOADB
	ROW(4, 0, 8)
	ROW(5, 0, 12)
	ROW(6, 0, 16)
	ROW(7, 0, 20)
	SUBS  $1, R5
	BNE   loop
	STOREC(F8, F9, F10, F11)
	STOREC(F12, F13, F14, F15)
	STOREC(F16, F17, F18, F19)
	STOREC(F20, F21, F22, F23)
	RET

// func tile2x16(t *tile)
TEXT ·tile2x16(SB), NOSPLIT, $0-8
	ARGS
	CBZ R11, zero
	LOADC(F8, F9, F10, F11)
	LOADC(F12, F13, F14, F15)
	B   loop

zero:
	ZERO4(V8, V9, V10, V11)
	ZERO4(V12, V13, V14, V15)

loop:
	FMOVS (R1), F4
	FMOVS (R1)(R6), F5
	ADD   R9, R1
	LOADB
	ROW(4, 0, 8)
	ROW(5, 0, 12)
	SUBS  $1, R5
	BNE   loop
	STOREC(F8, F9, F10, F11)
	STOREC(F12, F13, F14, F15)
	RET

// func tile1x16(t *tile)
TEXT ·tile1x16(SB), NOSPLIT, $0-8
	ARGS
	CBZ R11, zero
	LOADC(F8, F9, F10, F11)
	B   loop

zero:
	ZERO4(V8, V9, V10, V11)

loop:
	FMOVS (R1), F4
	ADD   R9, R1
	LOADB
	ROW(4, 0, 8)
	SUBS  $1, R5
	BNE   loop
	STOREC(F8, F9, F10, F11)
	RET

// TURN4 turns 4 by 4 elements: rows A to D become columns there; E to H are used.
#define TURN4(A, B, C, D, E, F, G, H) \
	VTRN1 B.S4, A.S4, E.S4 \
	VTRN2 B.S4, A.S4, F.S4 \
	VTRN1 D.S4, C.S4, G.S4 \
	VTRN2 D.S4, C.S4, H.S4 \
	VTRN1 G.D2, E.D2, A.D2 \
	VTRN1 H.D2, F.D2, B.D2 \
	VTRN2 G.D2, E.D2, C.D2 \
	VTRN2 H.D2, F.D2, D.D2

// ROWS4 makes pointers to four rows from P on.
#define ROWS4(P, A, B, C) \
	ADD R6, P, A \
	ADD R6, A, B \
	ADD R6, B, C

// func turn8x16NEON(dst, src []float32, stride, quads int)
//
// Four columns of eight rows at a time.
TEXT ·turn8x16NEON(SB), NOSPLIT, $0-64
	TURNARGS
	MOVD quads+56(FP), R5
	ROWS4(R1, R2, R3, R4)
	ADD  R6, R4, R7
	ROWS4(R7, R8, R9, R10)

loop:
	FMOVQ.P 16(R1), F0
	FMOVQ.P 16(R2), F1
	FMOVQ.P 16(R3), F2
	FMOVQ.P 16(R4), F3
	FMOVQ.P 16(R7), F4
	FMOVQ.P 16(R8), F5
	FMOVQ.P 16(R9), F6
	FMOVQ.P 16(R10), F7
	TURN4(V0, V1, V2, V3, V16, V17, V18, V19)
	TURN4(V4, V5, V6, V7, V20, V21, V22, V23)
	FSTPQ   (F0, F4), (R0)
	FSTPQ   (F1, F5), 64(R0)
	FSTPQ   (F2, F6), 128(R0)
	FSTPQ   (F3, F7), 192(R0)
	ADD     $256, R0
	SUBS    $1, R5
	BNE     loop
	RET

// func turn6NEON(dst, src []float32, stride, quads int)
//
// The same of six rows, whose transpose has no gaps.
TEXT ·turn6NEON(SB), NOSPLIT, $0-64
	TURNARGS
	MOVD quads+56(FP), R5
	ROWS4(R1, R2, R3, R4)
	ADD  R6, R4, R7
	ADD  R6, R7, R8

loop:
	FMOVQ.P 16(R1), F0
	FMOVQ.P 16(R2), F1
	FMOVQ.P 16(R3), F2
	FMOVQ.P 16(R4), F3
	FMOVQ.P 16(R7), F4
	FMOVQ.P 16(R8), F5
	TURN4(V0, V1, V2, V3, V16, V17, V18, V19)
	VZIP1   V5.S4, V4.S4, V6.S4
	VZIP2   V5.S4, V4.S4, V7.S4
	FMOVQ   F0, (R0)
	FMOVD   F6, 16(R0)
	FMOVQ   F1, 24(R0)
	ADD     $40, R0, R9
	VST1    V6.D[1], (R9)
	FMOVQ   F2, 48(R0)
	FMOVD   F7, 64(R0)
	FMOVQ   F3, 72(R0)
	ADD     $88, R0, R9
	VST1    V7.D[1], (R9)
	ADD     $96, R0
	SUBS    $1, R5
	BNE     loop
	RET

// func copy16NEON(dst, src []float32, stride, k int)
TEXT ·copy16NEON(SB), NOSPLIT, $0-64
	TURNARGS
	MOVD k+56(FP), R5

loop:
	FLDPQ (R1), (F0, F1)
	FLDPQ 32(R1), (F2, F3)
	ADD   R6, R1
	FSTPQ (F0, F1), (R0)
	FSTPQ (F2, F3), 32(R0)
	ADD   $64, R0
	SUBS  $1, R5
	BNE   loop
	RET

// func copy6NEON(dst, src []float32, stride, k int)
TEXT ·copy6NEON(SB), NOSPLIT, $0-64
	TURNARGS
	MOVD k+56(FP), R5

loop:
	FMOVQ (R1), F0
	FMOVD 16(R1), F1
	ADD   R6, R1
	FMOVQ F0, (R0)
	FMOVD F1, 16(R0)
	ADD   $24, R0
	SUBS  $1, R5
	BNE   loop
	RET

// DOTS4 adds four elements of x, in V0, times four of each of the rows at PA to PD to d.
#define DOTS4(PA, PB, PC, PD, d) \
	FMOVQ.P 16(PA), F1 \
	FMOVQ.P 16(PB), F2 \
	FMOVQ.P 16(PC), F3 \
	FMOVQ.P 16(PD), F4 \
	TURN4(V1, V2, V3, V4, V16, V17, V18, V19) \
	FMLAE(0, 0, 1, d) \
	FMLAE(0, 1, 2, d) \
	FMLAE(0, 2, 3, d) \
	FMLAE(0, 3, 4, d)

// func dots16NEON(y, x, rows []float32, stride, quads int, load bool)
TEXT ·dots16NEON(SB), NOSPLIT, $0-89
	MOVD  y_base+0(FP), R0
	MOVD  x_base+24(FP), R1
	MOVD  rows_base+48(FP), R2
	MOVD  stride+72(FP), R6
	MOVD  quads+80(FP), R5
	MOVBU load+88(FP), R3
	LSL   $2, R6
	ZERO4(V28, V29, V30, V31)
	CBZ   R3, zero
	FLDPQ (R0), (F28, F29)
	FLDPQ 32(R0), (F30, F31)

zero:
	ROWS4(R2, R3, R4, R7)
	ADD R6, R7, R8
	ROWS4(R8, R9, R10, R11)
	ADD R6, R11, R12
	ROWS4(R12, R13, R14, R15)
	ADD R6, R15, R16
	ROWS4(R16, R17, R19, R20)

loop:
	FMOVQ.P 16(R1), F0
	DOTS4(R2, R3, R4, R7, 28)
	DOTS4(R8, R9, R10, R11, 29)
	DOTS4(R12, R13, R14, R15, 30)
	DOTS4(R16, R17, R19, R20, 31)
	SUBS $1, R5
	BNE  loop
	FSTPQ (F28, F29), (R0)
	FSTPQ (F30, F31), 32(R0)
	RET

// func peakNEON(n int)
//
// n times 24 multiply-adds of 4 elements, all zero, each of which waits for none of
// the other 23.
TEXT ·peakNEON(SB), NOSPLIT, $0-8
	MOVD n+0(FP), R5
	ZERO4(V0, V1, V2, V3)
	ZERO4(V8, V9, V10, V11)
	ZERO4(V12, V13, V14, V15)
	ZERO4(V16, V17, V18, V19)
	ZERO4(V20, V21, V22, V23)
	ZERO4(V24, V25, V26, V27)
	ZERO4(V28, V29, V30, V31)

loop:
	ROWS6(0, 0, 0, 1, 0, 2, 0, 3, 1, 0, 1, 1)
	SUBS $1, R5
	BNE  loop
	RET

// func pause()
TEXT ·pause(SB), NOSPLIT, $0-0
	YIELD
	RET
