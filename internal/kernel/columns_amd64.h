// The kernels of columns.go, of both tiers; see vec_amd64.h. Each does one vector of columns
// from the first row to the last before the next.

// STRIDE puts a distance of rows, in elements, into reg, in bytes.
#define STRIDE(distance, reg) \
	MOVQ distance, reg \
	SHLQ $2, reg

// func mulAdd(dst, x, y *float32, n int)
TEXT FN_mulAdd(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DX
	COUNT(n+24(FP))
loop:
	VMOVUPS     (DI)(AX*1), V0
	VMOVUPS     (SI)(AX*1), V1
	VFMADD231PS (DX)(AX*1), V1, V0
	VMOVUPS     V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func dotColumns(dst, a, b *float32, n, rows, strideA, strideB int)
TEXT FN_dotColumns(SB), NOSPLIT, $0-56
	MOVQ dst+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), DX
	COUNT(n+24(FP))
	STRIDE(strideA+40(FP), R10)
	STRIDE(strideB+48(FP), R11)
	LEAQ (4*VB)(AX), R9
	CMPQ R9, CX
	JGT  vector
four:
	LEAQ    (DI)(AX*1), R15
	VMOVUPS (R15), V0
	VMOVUPS VB(R15), V1
	VMOVUPS (2*VB)(R15), V2
	VMOVUPS (3*VB)(R15), V3
	LEAQ    (SI)(AX*1), R12
	LEAQ    (DX)(AX*1), R13
	MOVQ    rows+32(FP), BX
fours:
	VMOVUPS     (R12), V4
	VMOVUPS     VB(R12), V5
	VMOVUPS     (2*VB)(R12), V6
	VMOVUPS     (3*VB)(R12), V7
	VFMADD231PS (R13), V4, V0
	VFMADD231PS VB(R13), V5, V1
	VFMADD231PS (2*VB)(R13), V6, V2
	VFMADD231PS (3*VB)(R13), V7, V3
	ADDQ        R10, R12
	ADDQ        R11, R13
	DECQ        BX
	JNZ         fours
	VMOVUPS     V0, (R15)
	VMOVUPS     V1, VB(R15)
	VMOVUPS     V2, (2*VB)(R15)
	VMOVUPS     V3, (3*VB)(R15)
	MOVQ        R9, AX
	LEAQ        (4*VB)(AX), R9
	CMPQ        R9, CX
	JLE         four
	CMPQ        AX, CX
	JGE         end
vector:
	VMOVUPS (DI)(AX*1), V0
	LEAQ    (SI)(AX*1), R12
	LEAQ    (DX)(AX*1), R13
	MOVQ    rows+32(FP), BX
row:
	VMOVUPS     (R12), V1
	VFMADD231PS (R13), V1, V0
	ADDQ        R10, R12
	ADDQ        R11, R13
	DECQ        BX
	JNZ         row
	VMOVUPS     V0, (DI)(AX*1)
	AGAIN(vector)
end:
	DONE

// func mixRows(dst, f, x *float32, n, rows, stride int)
TEXT FN_mixRows(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ f+8(FP), DX
	MOVQ x+16(FP), SI
	COUNT(n+24(FP))
	STRIDE(stride+40(FP), R10)
	LEAQ (4*VB)(AX), R9
	CMPQ R9, CX
	JGT  vector
four:
	LEAQ    (DI)(AX*1), R15
	VMOVUPS (R15), V0
	VMOVUPS VB(R15), V1
	VMOVUPS (2*VB)(R15), V2
	VMOVUPS (3*VB)(R15), V3
	LEAQ    (SI)(AX*1), R12
	MOVQ    DX, R13
	MOVQ    rows+32(FP), BX
fours:
	VBROADCASTSS (R13), V4
	VFMADD231PS  (R12), V4, V0
	VFMADD231PS  VB(R12), V4, V1
	VFMADD231PS  (2*VB)(R12), V4, V2
	VFMADD231PS  (3*VB)(R12), V4, V3
	ADDQ         R10, R12
	ADDQ         $4, R13
	DECQ         BX
	JNZ          fours
	VMOVUPS      V0, (R15)
	VMOVUPS      V1, VB(R15)
	VMOVUPS      V2, (2*VB)(R15)
	VMOVUPS      V3, (3*VB)(R15)
	MOVQ         R9, AX
	LEAQ         (4*VB)(AX), R9
	CMPQ         R9, CX
	JLE          four
	CMPQ         AX, CX
	JGE          end
vector:
	VMOVUPS (DI)(AX*1), V0
	LEAQ    (SI)(AX*1), R12
	MOVQ    DX, R13
	MOVQ    rows+32(FP), BX
row:
	VBROADCASTSS (R13), V4
	VFMADD231PS  (R12), V4, V0
	ADDQ         R10, R12
	ADDQ         $4, R13
	DECQ         BX
	JNZ          row
	VMOVUPS      V0, (DI)(AX*1)
	AGAIN(vector)
end:
	DONE

// func squareColumns(dst, f, z *float32, n, k, strideDst, strideZ int): R8 counts the elements
// on and before the diagonal.
TEXT FN_squareColumns(SB), NOSPLIT, $0-56
	MOVQ dst+0(FP), DI
	MOVQ f+8(FP), DX
	MOVQ z+16(FP), SI
	COUNT(n+24(FP))
	STRIDE(strideDst+40(FP), R10)
	STRIDE(strideZ+48(FP), R11)
	MOVQ k+32(FP), R9
	IMULQ R10, R9
vector:
	VMOVUPS (DX)(AX*1), V1
	LEAQ    (DI)(AX*1), R15
	LEAQ    (SI)(AX*1), R13
	MOVQ    $1, R8
row:
	VMULPS (R13), V1, V2
	LEAQ   (SI)(AX*1), R12
	MOVQ   R15, DI
	MOVQ   R8, BX
element:
	VMOVUPS     (DI), V0
	VFMADD231PS (R12), V2, V0
	VMOVUPS     V0, (DI)
	ADDQ        R10, DI
	ADDQ        R11, R12
	DECQ        BX
	JNZ         element
	ADDQ        R9, R15
	ADDQ        R11, R13
	INCQ        R8
	CMPQ        R8, k+32(FP)
	JLE         row
	MOVQ        dst+0(FP), DI
	AGAIN(vector)
	DONE

// func axpyColumns(dst, f, a *float32, n, rows, strideDst, strideA int)
TEXT FN_axpyColumns(SB), NOSPLIT, $0-56
	MOVQ dst+0(FP), DI
	MOVQ f+8(FP), DX
	MOVQ a+16(FP), SI
	COUNT(n+24(FP))
	STRIDE(strideDst+40(FP), R10)
	STRIDE(strideA+48(FP), R11)
vector:
	VMOVUPS (DX)(AX*1), V1
	LEAQ    (DI)(AX*1), R12
	LEAQ    (SI)(AX*1), R13
	MOVQ    rows+32(FP), BX
row:
	VMOVUPS     (R12), V0
	VFMADD231PS (R13), V1, V0
	VMOVUPS     V0, (R12)
	ADDQ        R10, R12
	ADDQ        R11, R13
	DECQ        BX
	JNZ         row
	AGAIN(vector)
	DONE

// func productColumns(dst, f, x, y *float32, n, rows, strideDst, strideX, strideY int)
TEXT FN_productColumns(SB), NOSPLIT, $0-72
	MOVQ dst+0(FP), DI
	MOVQ x+16(FP), SI
	MOVQ y+24(FP), DX
	COUNT(n+32(FP))
	STRIDE(strideDst+48(FP), R9)
	STRIDE(strideX+56(FP), R10)
	STRIDE(strideY+64(FP), R11)
vector:
	LEAQ    (DI)(AX*1), R15
	VMOVUPS (R15), V0
	VMOVUPS (R15)(R9*1), V1
	VMOVUPS (R15)(R9*2), V2
	LEAQ    (R15)(R9*2), R15
	VMOVUPS (R15)(R9*1), V3
	VMOVUPS (R15)(R9*2), V4
	MOVQ    f+8(FP), R8
	LEAQ    (SI)(AX*1), R12
	LEAQ    (DX)(AX*1), R13
	MOVQ    rows+40(FP), BX
row:
	VBROADCASTSS (R8), V5
	VMOVUPS      (R12), V6
	VMOVUPS      (R13), V7
	VMULPS       V5, V6, V8
	VMULPS       V5, V7, V9
	VFMADD231PS  V6, V8, V0
	VFMADD231PS  V7, V8, V1
	VFMADD231PS  V7, V9, V2
	VADDPS       V8, V3, V3
	VADDPS       V9, V4, V4
	ADDQ         $4, R8
	ADDQ         R10, R12
	ADDQ         R11, R13
	DECQ         BX
	JNZ          row
	VMOVUPS      V3, (R15)(R9*1)
	VMOVUPS      V4, (R15)(R9*2)
	LEAQ         (DI)(AX*1), R15
	VMOVUPS      V0, (R15)
	VMOVUPS      V1, (R15)(R9*1)
	VMOVUPS      V2, (R15)(R9*2)
	AGAIN(vector)
	DONE

// func rangeColumns(least, most, f, a, b *float32, n, rows, strideA, strideB int): the second
// source is what stays when one is NaN
TEXT FN_rangeColumns(SB), NOSPLIT, $0-72
	MOVQ least+0(FP), DI
	MOVQ most+8(FP), R9
	MOVQ f+16(FP), R8
	MOVQ a+24(FP), SI
	MOVQ b+32(FP), DX
	COUNT(n+40(FP))
	STRIDE(strideA+56(FP), R10)
	STRIDE(strideB+64(FP), R11)
vector:
	VMOVUPS (DI)(AX*1), V0
	VMOVUPS (R9)(AX*1), V1
	VMOVUPS (R8)(AX*1), V2
	LEAQ    (SI)(AX*1), R12
	LEAQ    (DX)(AX*1), R13
	MOVQ    rows+48(FP), BX
row:
	VMOVUPS     (R13), V3
	VFMADD231PS (R12), V2, V3
	VMINPS      V0, V3, V0
	VMAXPS      V1, V3, V1
	ADDQ        R10, R12
	ADDQ        R11, R13
	DECQ        BX
	JNZ         row
	VMOVUPS     V0, (DI)(AX*1)
	VMOVUPS     V1, (R9)(AX*1)
	AGAIN(vector)
	DONE

// func outside(dst, x, y, limit *float32, n int, a, f float32) uint64: from the last vector to
// the first, whose bits come last.
TEXT FN_outside(SB), NOSPLIT, $0-56
	MOVQ         dst+0(FP), DI
	MOVQ         x+8(FP), SI
	MOVQ         y+16(FP), DX
	MOVQ         limit+24(FP), R10
	MOVQ         n+32(FP), CX
	SHLQ         $2, CX
	CONSTANTS
	VMOVUPS      NOTSIGN, V6
	VBROADCASTSS a+40(FP), V4
	VBROADCASTSS f+44(FP), V5
	XORQ         R9, R9
loop:
	SUBQ        $VB, CX
	VMOVUPS     (DX)(CX*1), V0
	VFMADD231PS (SI)(CX*1), V4, V0
	VMOVUPS     V0, (DI)(CX*1)
	VPANDD_     V6, V0, V1
	VMULPS      (R10)(CX*1), V5, V2
#ifdef WIDE
	VCMPPS      $0x16, V2, V1, K1
	KMOVW       K1, BX
	SHLQ        $16, R9
#else
	VCMPPS      $0x16, V2, V1, V3
	VMOVMSKPS   V3, BX
	SHLQ        $8, R9
#endif
	ORQ         BX, R9
	TESTQ       CX, CX
	JNZ         loop
	MOVQ        R9, ret+48(FP)
	DONE
