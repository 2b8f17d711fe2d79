// The vector kernels of both tiers. vec_avx2_amd64.s and vec_avx512_amd64.s include
// this text after giving V0 to V15 the width they have, VB the bytes of a vector and
// every function its name. WIDE is defined for AVX-512.
//
// All of them do n > 0 elements, a multiple of 16, in the order of operations that
// the exported functions state; nothing is fused that is not fused there. Pointers
// need no alignment. Registers: AX is the byte offset, CX its end, R8 the constants.

// Constants, in the order of vecConst.
#define LOG2E   0(R8)
#define MAGIC   64(R8)
#define LN2HI   128(R8)
#define LN2LO   192(R8)
#define EXP2    256(R8)
#define EXP3    320(R8)
#define EXP4    384(R8)
#define EXP5    448(R8)
#define EXP6    512(R8)
#define EXPLOW  576(R8)
#define EXPHIGH 640(R8)
#define ONE     704(R8)
#define TWO     768(R8)
#define SIGN    832(R8)
#define SMALL   896(R8)
#define TANH1   960(R8)
#define TANH2   1024(R8)
#define TANH3   1088(R8)
#define TANH4   1152(R8)
#define TANH5   1216(R8)
#define GELU1   1280(R8)
#define GELU3   1344(R8)
#define GELU9   1408(R8)
#define BIAS    1472(R8)
#define INT1    1536(R8)
#define INT7FFF 1600(R8)
#define INT40   1664(R8)
#define INTINF  1728(R8)
#define NOTSIGN 1792(R8)
#define ODDSIGN 1856(R8)

// SELECT: d = v in the lanes where m has its sign bit set.
#ifdef WIDE
#define SELECT(m, v, d) \
	VPMOVD2M m, K1     \
	VMOVAPS  v, K1, d
#else
#define SELECT(m, v, d) \
	VBLENDVPS m, v, d, d
#endif

#define CONSTANTS LEAQ ·vecConst(SB), R8

// COUNT puts the bytes of n float32 into CX and starts at 0.
#define COUNT(n) \
	MOVQ n, CX  \
	SHLQ $2, CX \
	XORQ AX, AX

#define AGAIN(loop) \
	ADDQ $VB, AX \
	CMPQ AX, CX  \
	JLT  loop

#define DONE \
	VZEROUPPER \
	RET

// Sums. l holds the sixteen lanes, before and after. AVX2 keeps lanes 8 to 15 in V1.

// func dot(l *lanes, x, y *float32, n int)
TEXT FN_dot(SB), NOSPLIT, $0-32
	MOVQ    l+0(FP), DX
	MOVQ    x+8(FP), SI
	MOVQ    y+16(FP), DI
	COUNT(n+24(FP))
	VMOVUPS (DX), V0
#ifndef WIDE
	VMOVUPS 32(DX), V1
#endif
loop:
	VMOVUPS     (SI)(AX*1), V2
	VFMADD231PS (DI)(AX*1), V2, V0
#ifndef WIDE
	VMOVUPS     32(SI)(AX*1), V3
	VFMADD231PS 32(DI)(AX*1), V3, V1
#endif
	ADDQ    $64, AX
	CMPQ    AX, CX
	JLT     loop
	VMOVUPS V0, (DX)
#ifndef WIDE
	VMOVUPS V1, 32(DX)
#endif
	DONE

// func dot3(l *lanes, x, y, z *float32, n int): (x*y) rounded, times z fused
TEXT FN_dot3(SB), NOSPLIT, $0-40
	MOVQ    l+0(FP), DX
	MOVQ    x+8(FP), SI
	MOVQ    y+16(FP), DI
	MOVQ    z+24(FP), BX
	COUNT(n+32(FP))
	VMOVUPS (DX), V0
#ifndef WIDE
	VMOVUPS 32(DX), V1
#endif
loop:
	VMOVUPS     (SI)(AX*1), V2
	VMULPS      (DI)(AX*1), V2, V2
	VFMADD231PS (BX)(AX*1), V2, V0
#ifndef WIDE
	VMOVUPS     32(SI)(AX*1), V3
	VMULPS      32(DI)(AX*1), V3, V3
	VFMADD231PS 32(BX)(AX*1), V3, V1
#endif
	ADDQ    $64, AX
	CMPQ    AX, CX
	JLT     loop
	VMOVUPS V0, (DX)
#ifndef WIDE
	VMOVUPS V1, 32(DX)
#endif
	DONE

// func sum(l *lanes, x *float32, n int)
TEXT FN_sum(SB), NOSPLIT, $0-24
	MOVQ    l+0(FP), DX
	MOVQ    x+8(FP), SI
	COUNT(n+16(FP))
	VMOVUPS (DX), V0
#ifndef WIDE
	VMOVUPS 32(DX), V1
#endif
loop:
	VADDPS  (SI)(AX*1), V0, V0
#ifndef WIDE
	VADDPS  32(SI)(AX*1), V1, V1
#endif
	ADDQ    $64, AX
	CMPQ    AX, CX
	JLT     loop
	VMOVUPS V0, (DX)
#ifndef WIDE
	VMOVUPS V1, 32(DX)
#endif
	DONE

// func max(l *lanes, x *float32, n int): the second source is what stays when one is NaN
TEXT FN_max(SB), NOSPLIT, $0-24
	MOVQ    l+0(FP), DX
	MOVQ    x+8(FP), SI
	COUNT(n+16(FP))
	VMOVUPS (DX), V0
#ifndef WIDE
	VMOVUPS 32(DX), V1
#endif
loop:
	VMOVUPS (SI)(AX*1), V2
	VMAXPS  V0, V2, V0
#ifndef WIDE
	VMOVUPS 32(SI)(AX*1), V3
	VMAXPS  V1, V3, V1
#endif
	ADDQ    $64, AX
	CMPQ    AX, CX
	JLT     loop
	VMOVUPS V0, (DX)
#ifndef WIDE
	VMOVUPS V1, 32(DX)
#endif
	DONE

// Sixteen float64 sums at DX, in V0 and V1, of AVX2 in V0 to V3.
#ifdef WIDE
#define LOADSUMS \
	VMOVUPS (0*VB)(DX), V0 \
	VMOVUPS (1*VB)(DX), V1
#define STORESUMS \
	VMOVUPS V0, (0*VB)(DX) \
	VMOVUPS V1, (1*VB)(DX)
#else
#define LOADSUMS \
	VMOVUPS (0*VB)(DX), V0 \
	VMOVUPS (1*VB)(DX), V1 \
	VMOVUPS (2*VB)(DX), V2 \
	VMOVUPS (3*VB)(DX), V3
#define STORESUMS \
	VMOVUPS V0, (0*VB)(DX) \
	VMOVUPS V1, (1*VB)(DX) \
	VMOVUPS V2, (2*VB)(DX) \
	VMOVUPS V3, (3*VB)(DX)
#endif

// func sumSquares64(l *[16]float64, x *float32, n int)
TEXT FN_sumSquares64(SB), NOSPLIT, $0-24
	MOVQ    l+0(FP), DX
	MOVQ    x+8(FP), SI
	COUNT(n+16(FP))
	LOADSUMS
loop:
	VCVTPS2PD   (SI)(AX*1), V4
	VCVTPS2PD   (VB/2)(SI)(AX*1), V5
	VFMADD231PD V4, V4, V0
	VFMADD231PD V5, V5, V1
#ifndef WIDE
	VCVTPS2PD   32(SI)(AX*1), V4
	VCVTPS2PD   48(SI)(AX*1), V5
	VFMADD231PD V4, V4, V2
	VFMADD231PD V5, V5, V3
#endif
	ADDQ    $64, AX
	CMPQ    AX, CX
	JLT     loop
	STORESUMS
	DONE

// func dot64(l *[16]float64, x, y *float32, n int)
TEXT FN_dot64(SB), NOSPLIT, $0-32
	MOVQ    l+0(FP), DX
	MOVQ    x+8(FP), SI
	MOVQ    y+16(FP), DI
	COUNT(n+24(FP))
	LOADSUMS
loop:
	VCVTPS2PD   (SI)(AX*1), V4
	VCVTPS2PD   (VB/2)(SI)(AX*1), V5
	VCVTPS2PD   (DI)(AX*1), V6
	VCVTPS2PD   (VB/2)(DI)(AX*1), V7
	VFMADD231PD V4, V6, V0
	VFMADD231PD V5, V7, V1
#ifndef WIDE
	VCVTPS2PD   32(SI)(AX*1), V4
	VCVTPS2PD   48(SI)(AX*1), V5
	VCVTPS2PD   32(DI)(AX*1), V6
	VCVTPS2PD   48(DI)(AX*1), V7
	VFMADD231PD V4, V6, V2
	VFMADD231PD V5, V7, V3
#endif
	ADDQ    $64, AX
	CMPQ    AX, CX
	JLT     loop
	STORESUMS
	DONE

// func add(dst, x *float32, n int)
TEXT FN_add(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	COUNT(n+16(FP))
loop:
	VMOVUPS (DI)(AX*1), V0
	VADDPS  (SI)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func sub(dst, x, y *float32, n int)
TEXT FN_sub(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DX
	COUNT(n+24(FP))
loop:
	VMOVUPS (SI)(AX*1), V0
	VSUBPS  (DX)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func mul(dst, x, y *float32, n int)
TEXT FN_mul(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DX
	COUNT(n+24(FP))
loop:
	VMOVUPS (SI)(AX*1), V0
	VMULPS  (DX)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func scale(dst, x *float32, n int, a float32)
TEXT FN_scale(SB), NOSPLIT, $0-28
	MOVQ         dst+0(FP), DI
	MOVQ         x+8(FP), SI
	COUNT(n+16(FP))
	VBROADCASTSS a+24(FP), V1
loop:
	VMULPS  (SI)(AX*1), V1, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func axpy(dst, x *float32, n int, a float32)
TEXT FN_axpy(SB), NOSPLIT, $0-28
	MOVQ         dst+0(FP), DI
	MOVQ         x+8(FP), SI
	COUNT(n+16(FP))
	VBROADCASTSS a+24(FP), V1
loop:
	VMOVUPS     (DI)(AX*1), V0
	VFMADD231PS (SI)(AX*1), V1, V0
	VMOVUPS     V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func softcapBackward(dx, dy, y *float32, n int, cap float32)
TEXT FN_softcapBackward(SB), NOSPLIT, $0-36
	MOVQ         dx+0(FP), DI
	MOVQ         dy+8(FP), SI
	MOVQ         y+16(FP), DX
	COUNT(n+24(FP))
	VBROADCASTSS cap+32(FP), V7
	CONSTANTS
	VMOVUPS      ONE, V6
loop:
	VMOVUPS (DX)(AX*1), V0
	VDIVPS  V7, V0, V0
	VMULPS  V0, V0, V0
	VSUBPS  V0, V6, V0
	VMULPS  (SI)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func softmaxBackward(dx, p, dp *float32, n int, d float32)
TEXT FN_softmaxBackward(SB), NOSPLIT, $0-36
	MOVQ         dx+0(FP), DI
	MOVQ         p+8(FP), SI
	MOVQ         dp+16(FP), DX
	COUNT(n+24(FP))
	VBROADCASTSS d+32(FP), V7
loop:
	VMOVUPS (DX)(AX*1), V0
	VSUBPS  V7, V0, V0
	VMULPS  (SI)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func norm(y, x, w *float32, n int, r float32)
TEXT FN_norm(SB), NOSPLIT, $0-36
	MOVQ         y+0(FP), DI
	MOVQ         x+8(FP), SI
	MOVQ         w+16(FP), DX
	COUNT(n+24(FP))
	VBROADCASTSS r+32(FP), V7
loop:
	VMULPS  (SI)(AX*1), V7, V0
	VMULPS  (DX)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func normBackward(dx, dy, x, w *float32, n int, r, c float32, acc bool): w may be nil
TEXT FN_normBackward(SB), NOSPLIT, $0-49
	MOVQ         dx+0(FP), DI
	MOVQ         dy+8(FP), SI
	MOVQ         x+16(FP), DX
	MOVQ         w+24(FP), BX
	COUNT(n+32(FP))
	VBROADCASTSS r+40(FP), V7
	VBROADCASTSS c+44(FP), V6
	MOVBLZX      acc+48(FP), R9
	CONSTANTS
	MOVQ         $VB, R10
	TESTQ        BX, BX
	JNE          loop
	LEAQ         ONE, BX
	XORQ         R10, R10
loop:
	VMOVUPS (SI)(AX*1), V0
	VMULPS  (BX), V0, V0
	ADDQ    R10, BX
	VMULPS  (DX)(AX*1), V6, V1
	VSUBPS  V1, V0, V0
	VMULPS  V7, V0, V0
	TESTL   R9, R9
	JEQ     store
	VADDPS  (DI)(AX*1), V0, V0
store:
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func ropeHalves(a, b, cos, sin *float32, n int, sign uint32)
TEXT FN_ropeHalves(SB), NOSPLIT, $0-44
	MOVQ         a+0(FP), DI
	MOVQ         b+8(FP), SI
	MOVQ         cos+16(FP), DX
	MOVQ         sin+24(FP), BX
	COUNT(n+32(FP))
	VBROADCASTSS sign+40(FP), V7
loop:
	VMOVUPS (DI)(AX*1), V0
	VMOVUPS (SI)(AX*1), V1
	VMOVUPS (DX)(AX*1), V2
	VXORPS  (BX)(AX*1), V7, V3
	VMULPS  V2, V0, V4
	VMULPS  V3, V1, V5
	VSUBPS  V5, V4, V4
	VMULPS  V2, V1, V1
	VMULPS  V3, V0, V0
	VADDPS  V0, V1, V1
	VMOVUPS V4, (DI)(AX*1)
	VMOVUPS V1, (SI)(AX*1)
	AGAIN(loop)
	DONE

// func ropePairs(x, cos, sin *float32, n int, sign uint32): n pairs
TEXT FN_ropePairs(SB), NOSPLIT, $0-36
	MOVQ         x+0(FP), DI
	MOVQ         cos+8(FP), DX
	MOVQ         sin+16(FP), BX
	COUNT(n+24(FP))
	VBROADCASTSS sign+32(FP), V7
	CONSTANTS
	VMOVUPS      ODDSIGN, V6
loop:
	// Each cosine twice, each sine twice, for half a vector's pairs.
	VPMOVZXDQ (DX)(AX*1), V2
	VPMOVZXDQ (BX)(AX*1), V3
	VMOVSLDUP V2, V2
	VMOVSLDUP V3, V3
	VXORPS    V7, V3, V3
	VMOVUPS   (DI)(AX*2), V0
	VPERMILPS $0xb1, V0, V1
	VMULPS    V2, V0, V0
	VMULPS    V3, V1, V1
	VXORPS    V6, V1, V1
	VADDPS    V1, V0, V0
	VMOVUPS   V0, (DI)(AX*2)
	ADDQ      $(VB/2), AX
	CMPQ      AX, CX
	JLT       loop
	DONE

// func f16ToF32(dst *float32, src *byte, n int)
TEXT FN_f16ToF32(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	ADDQ CX, CX
	XORQ AX, AX
loop:
	VCVTPH2PS (SI)(AX*1), V0
	VMOVUPS   V0, (DI)(AX*2)
	ADDQ      $(VB/2), AX
	CMPQ      AX, CX
	JLT       loop
	DONE

// func f32ToF16(dst *byte, src *float32, n int)
TEXT FN_f32ToF16(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	ADDQ CX, CX
	XORQ AX, AX
loop:
	VMOVUPS   (SI)(AX*2), V0
	VCVTPS2PH $0, V0, (DI)(AX*1)
	ADDQ      $(VB/2), AX
	CMPQ      AX, CX
	JLT       loop
	DONE

// func bf16ToF32(dst *float32, src *byte, n int)
TEXT FN_bf16ToF32(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	ADDQ CX, CX
	XORQ AX, AX
loop:
	VPMOVZXWD (SI)(AX*1), V0
	VPSLLD    $16, V0, V0
	VMOVUPS   V0, (DI)(AX*2)
	ADDQ      $(VB/2), AX
	CMPQ      AX, CX
	JLT       loop
	DONE

// func f32ToBF16(dst *byte, src *float32, n int)
TEXT FN_f32ToBF16(SB), NOSPLIT, $0-24
	MOVQ    dst+0(FP), DI
	MOVQ    src+8(FP), SI
	MOVQ    n+16(FP), CX
	ADDQ    CX, CX
	XORQ    AX, AX
	CONSTANTS
	VMOVUPS INTINF, V7
loop:
	VMOVUPS (SI)(AX*2), V0
	VPSRLD  $16, V0, V1
	VPORD_  INT40, V1, V2   // what a NaN becomes
	VPANDD_ INT1, V1, V1
	VPADDD  INT7FFF, V1, V1
	VPADDD  V0, V1, V1
	VPSRLD  $16, V1, V1
	VPANDD_ NOTSIGN, V0, V0
	VPSUBD  V0, V7, V0      // negative for a NaN
	SELECT(V0, V2, V1)
#ifdef WIDE
	VPMOVDW V1, (DI)(AX*1)
#else
	VPACKUSDW V1, V1, V1
	VPERMQ    $0x08, V1, V1
	VMOVDQU   H1, (DI)(AX*1)
#endif
	ADDQ $(VB/2), AX
	CMPQ AX, CX
	JLT  loop
	DONE

// func adamW(p, m, v, grad *float32, n int, s *AdamWStep)
TEXT FN_adamW(SB), NOSPLIT, $0-48
	MOVQ         p+0(FP), DI
	MOVQ         m+8(FP), SI
	MOVQ         v+16(FP), DX
	MOVQ         grad+24(FP), BX
	COUNT(n+32(FP))
	MOVQ         s+40(FP), R9
	VBROADCASTSS 0(R9), V9   // Keep
	VBROADCASTSS 4(R9), V10  // W1
	VBROADCASTSS 8(R9), V11  // B2
	VBROADCASTSS 12(R9), V12 // W2
	VBROADCASTSS 16(R9), V13 // Root2
	VBROADCASTSS 20(R9), V14 // Eps
	VBROADCASTSS 24(R9), V15 // Size
loop:
	VMOVUPS (BX)(AX*1), V0
	VMOVUPS (SI)(AX*1), V1
	VSUBPS  V1, V0, V2
	VMULPS  V10, V2, V2
	VADDPS  V1, V2, V1
	VMOVUPS V1, (SI)(AX*1)
	VMULPS  V12, V0, V2
	VMULPS  V0, V2, V2
	VMULPS  (DX)(AX*1), V11, V3
	VADDPS  V3, V2, V2
	VMOVUPS V2, (DX)(AX*1)
	VSQRTPS V2, V2
	VDIVPS  V13, V2, V2
	VADDPS  V14, V2, V2
	VDIVPS  V2, V1, V1
	VMULPS  V15, V1, V1
	VMULPS  (DI)(AX*1), V9, V3
	VSUBPS  V1, V3, V3
	VMOVUPS V3, (DI)(AX*1)
	AGAIN(loop)
	DONE
