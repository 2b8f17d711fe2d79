//go:build !noasm

#include "textflag.h"
#include "neon_arm64.h"

// The kernels of columns.go; see vec_neon_arm64.s.

// STRIDE puts a distance of rows, in elements, into reg, in bytes.
#define STRIDE(distance, reg) \
	MOVD distance, reg \
	LSL  $2, reg

// func mulAddNEON(dst, x, y *float32, n int)
TEXT ·mulAddNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD y+16(FP), R2
	MOVD n+24(FP), R5

loop:
	VLD1   (R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1.P 64(R1), [V4.S4, V5.S4, V6.S4, V7.S4]
	VLD1.P 64(R2), [V8.S4, V9.S4, V10.S4, V11.S4]
	VFMLA  V8.S4, V4.S4, V0.S4
	VFMLA  V9.S4, V5.S4, V1.S4
	VFMLA  V10.S4, V6.S4, V2.S4
	VFMLA  V11.S4, V7.S4, V3.S4
	VST1.P [V0.S4, V1.S4, V2.S4, V3.S4], 64(R0)
	SUBS   $16, R5
	BNE    loop
	RET

// func dotColumnsNEON(dst, a, b *float32, n, rows, strideA, strideB int): 16 columns at a time
TEXT ·dotColumnsNEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD a+8(FP), R1
	MOVD b+16(FP), R2
	MOVD n+24(FP), R5
	STRIDE(strideA+40(FP), R8)
	STRIDE(strideB+48(FP), R9)

columns:
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	MOVD R1, R6
	MOVD R2, R7
	MOVD rows+32(FP), R4

row:
	VLD1   (R6), [V4.S4, V5.S4, V6.S4, V7.S4]
	VLD1   (R7), [V8.S4, V9.S4, V10.S4, V11.S4]
	VFMLA  V8.S4, V4.S4, V0.S4
	VFMLA  V9.S4, V5.S4, V1.S4
	VFMLA  V10.S4, V6.S4, V2.S4
	VFMLA  V11.S4, V7.S4, V3.S4
	ADD    R8, R6
	ADD    R9, R7
	SUBS   $1, R4
	BNE    row
	VST1.P [V0.S4, V1.S4, V2.S4, V3.S4], 64(R0)
	ADD    $64, R1
	ADD    $64, R2
	SUBS   $16, R5
	BNE    columns
	RET

// func axpyColumnsNEON(dst, f, a *float32, n, rows, strideDst, strideA int)
TEXT ·axpyColumnsNEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD f+8(FP), R1
	MOVD a+16(FP), R2
	MOVD n+24(FP), R5
	STRIDE(strideDst+40(FP), R8)
	STRIDE(strideA+48(FP), R9)

columns:
	VLD1.P 64(R1), [V8.S4, V9.S4, V10.S4, V11.S4]
	MOVD   R0, R6
	MOVD   R2, R7
	MOVD   rows+32(FP), R4

row:
	VLD1  (R6), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1  (R7), [V4.S4, V5.S4, V6.S4, V7.S4]
	VFMLA V8.S4, V4.S4, V0.S4
	VFMLA V9.S4, V5.S4, V1.S4
	VFMLA V10.S4, V6.S4, V2.S4
	VFMLA V11.S4, V7.S4, V3.S4
	VST1  [V0.S4, V1.S4, V2.S4, V3.S4], (R6)
	ADD   R8, R6
	ADD   R9, R7
	SUBS  $1, R4
	BNE   row
	ADD   $64, R0
	ADD   $64, R2
	SUBS  $16, R5
	BNE   columns
	RET

// func productColumnsNEON(dst, f, x, y *float32, n, rows, strideDst, strideX, strideY int): 4
// columns at a time
TEXT ·productColumnsNEON(SB), NOSPLIT, $0-72
	MOVD dst+0(FP), R0
	MOVD x+16(FP), R1
	MOVD y+24(FP), R2
	MOVD n+32(FP), R5
	STRIDE(strideDst+48(FP), R8)
	STRIDE(strideX+56(FP), R9)
	STRIDE(strideY+64(FP), R10)

columns:
	ADD  R8, R0, R11
	ADD  R8, R11, R12
	ADD  R8, R12, R13
	ADD  R8, R13, R14
	VLD1 (R0), [V0.S4]
	VLD1 (R11), [V1.S4]
	VLD1 (R12), [V2.S4]
	VLD1 (R13), [V3.S4]
	VLD1 (R14), [V4.S4]
	MOVD f+8(FP), R3
	MOVD R1, R6
	MOVD R2, R7
	MOVD rows+40(FP), R4

row:
	FMOVS  (R3), F5
	VDUP   V5.S[0], V5.S4
	VLD1   (R6), [V6.S4]
	VLD1   (R7), [V7.S4]
	FMUL4(5, 6, 8)
	FMUL4(5, 7, 9)
	VFMLA  V6.S4, V8.S4, V0.S4
	VFMLA  V7.S4, V8.S4, V1.S4
	VFMLA  V7.S4, V9.S4, V2.S4
	FADD4(8, 3, 3)
	FADD4(9, 4, 4)
	ADD    $4, R3
	ADD    R9, R6
	ADD    R10, R7
	SUBS   $1, R4
	BNE    row
	VST1.P [V0.S4], 16(R0)
	VST1   [V1.S4], (R11)
	VST1   [V2.S4], (R12)
	VST1   [V3.S4], (R13)
	VST1   [V4.S4], (R14)
	ADD    $16, R1
	ADD    $16, R2
	SUBS   $4, R5
	BNE    columns
	RET

// func rangeColumnsNEON(least, most, f, a, b *float32, n, rows, strideA, strideB int): 4 columns
// at a time
TEXT ·rangeColumnsNEON(SB), NOSPLIT, $0-72
	MOVD least+0(FP), R0
	MOVD most+8(FP), R1
	MOVD f+16(FP), R2
	MOVD a+24(FP), R3
	MOVD b+32(FP), R4
	MOVD n+40(FP), R5
	STRIDE(strideA+56(FP), R8)
	STRIDE(strideB+64(FP), R9)

columns:
	VLD1   (R0), [V0.S4]
	VLD1   (R1), [V1.S4]
	VLD1.P 16(R2), [V2.S4]
	MOVD   R3, R6
	MOVD   R4, R7
	MOVD   rows+48(FP), R10

row:
	VLD1  (R7), [V3.S4]
	VLD1  (R6), [V4.S4]
	VFMLA V4.S4, V2.S4, V3.S4
	FCMGT4(3, 0, 5)
	BSL16(0, 3, 5)
	VMOV  V5.B16, V0.B16
	FCMGT4(1, 3, 5)
	BSL16(1, 3, 5)
	VMOV  V5.B16, V1.B16
	ADD   R8, R6
	ADD   R9, R7
	SUBS  $1, R10
	BNE   row
	VST1.P [V0.S4], 16(R0)
	VST1.P [V1.S4], 16(R1)
	ADD    $16, R3
	ADD    $16, R4
	SUBS   $4, R5
	BNE    columns
	RET

// func mixRowsNEON(dst, f, x *float32, n, rows, stride int)
TEXT ·mixRowsNEON(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD f+8(FP), R1
	MOVD x+16(FP), R2
	MOVD n+24(FP), R5
	STRIDE(stride+40(FP), R8)

columns:
	VLD1 (R0), [V0.S4, V1.S4, V2.S4, V3.S4]
	MOVD R1, R6
	MOVD R2, R7
	MOVD rows+32(FP), R4

row:
	FMOVS (R6), F8
	VDUP  V8.S[0], V8.S4
	VLD1  (R7), [V4.S4, V5.S4, V6.S4, V7.S4]
	VFMLA V8.S4, V4.S4, V0.S4
	VFMLA V8.S4, V5.S4, V1.S4
	VFMLA V8.S4, V6.S4, V2.S4
	VFMLA V8.S4, V7.S4, V3.S4
	ADD   $4, R6
	ADD   R8, R7
	SUBS  $1, R4
	BNE   row
	VST1.P [V0.S4, V1.S4, V2.S4, V3.S4], 64(R0)
	ADD    $64, R2
	SUBS   $16, R5
	BNE    columns
	RET

// func squareColumnsNEON(dst, f, z *float32, n, k, strideDst, strideZ int): 16 columns at a time;
// R12 counts the elements on and before the diagonal
TEXT ·squareColumnsNEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD f+8(FP), R1
	MOVD z+16(FP), R2
	MOVD n+24(FP), R5
	MOVD k+32(FP), R3
	STRIDE(strideDst+40(FP), R8)
	STRIDE(strideZ+48(FP), R9)
	MUL  R3, R8, R10

columns:
	VLD1.P 64(R1), [V8.S4, V9.S4, V10.S4, V11.S4]
	MOVD   R0, R11
	MOVD   R2, R13
	MOVD   $1, R12

row:
	VLD1 (R13), [V12.S4, V13.S4, V14.S4, V15.S4]
	FMUL4(8, 12, 12)
	FMUL4(9, 13, 13)
	FMUL4(10, 14, 14)
	FMUL4(11, 15, 15)
	MOVD R11, R6
	MOVD R2, R7
	MOVD R12, R4

element:
	VLD1  (R6), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1  (R7), [V4.S4, V5.S4, V6.S4, V7.S4]
	VFMLA V12.S4, V4.S4, V0.S4
	VFMLA V13.S4, V5.S4, V1.S4
	VFMLA V14.S4, V6.S4, V2.S4
	VFMLA V15.S4, V7.S4, V3.S4
	VST1  [V0.S4, V1.S4, V2.S4, V3.S4], (R6)
	ADD   R8, R6
	ADD   R9, R7
	SUBS  $1, R4
	BNE   element
	ADD   R10, R11
	ADD   R9, R13
	ADD   $1, R12
	CMP   R3, R12
	BLE   row
	ADD   $64, R0
	ADD   $64, R2
	SUBS  $16, R5
	BNE   columns
	RET

// Of a word of four lanes, the bits that they give the mask.
DATA ·outsideBits+0(SB)/4, $1
DATA ·outsideBits+4(SB)/4, $2
DATA ·outsideBits+8(SB)/4, $4
DATA ·outsideBits+12(SB)/4, $8
GLOBL ·outsideBits(SB), RODATA|NOPTR, $16

// func outsideNEON(dst, x, y, limit *float32, n int, a, f float32) uint64: R6 is the place of the
// next bits.
TEXT ·outsideNEON(SB), NOSPLIT, $0-56
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  y+16(FP), R2
	MOVD  limit+24(FP), R3
	MOVD  n+32(FP), R5
	FMOVS a+40(FP), F4
	VDUP  V4.S[0], V4.S4
	FMOVS f+44(FP), F5
	VDUP  V5.S[0], V5.S4
	MOVD  $·outsideBits(SB), R7
	VLD1  (R7), [V6.S4]
	MOVD  ZR, R6
	MOVD  ZR, R8

loop:
	VLD1.P 16(R2), [V0.S4]
	VLD1.P 16(R1), [V1.S4]
	VFMLA  V4.S4, V1.S4, V0.S4
	VST1.P [V0.S4], 16(R0)
	FABS4(0, 1)
	VLD1.P 16(R3), [V2.S4]
	FMUL4(2, 5, 2)
	FCMGE4(1, 2, 3)
	BIC16(3, 6, 3)
	VADDV  V3.S4, V3
	VMOV   V3.S[0], R9
	LSL    R6, R9
	ORR    R9, R8
	ADD    $4, R6
	SUBS   $4, R5
	BNE    loop
	MOVD   R8, ret+48(FP)
	RET
