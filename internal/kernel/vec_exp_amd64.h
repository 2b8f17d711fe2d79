// The vector kernels that take exponentials, included after vec_amd64.h.

#ifdef WIDE
// POW2: q = u * 2^(t-MAGIC)
#define POW2(t, q, u) \
	VSUBPS    MAGIC, t, t \
	VSCALEFPS t, u, q
#else
#define POW2(t, q, u) \
	VPSUBD MAGIC, t, t \
	VPSRAD $1, t, q   \
	VPSUBD q, t, t    \
	VPADDD BIAS, q, q \
	VPSLLD $23, q, q  \
	VMULPS q, u, u    \
	VPADDD BIAS, t, t \
	VPSLLD $23, t, t  \
	VMULPS t, u, q
#endif

// EXP: q = Exp(x). Clobbers x, t, u.
#define EXP(x, t, q, u) \
	VMOVUPS EXPLOW, t  \
	VMAXPS  x, t, x    \
	VMOVUPS EXPHIGH, t \
	VMINPS  x, t, x    \
	VMULPS  LOG2E, x, t \
	VADDPS  MAGIC, t, t \
	VSUBPS  MAGIC, t, q \
	VMULPS  LN2HI, q, u \
	VSUBPS  u, x, x    \
	VMULPS  LN2LO, q, u \
	VSUBPS  u, x, x    \
	VMULPS  EXP6, x, u \
	VADDPS  EXP5, u, u \
	VMULPS  x, u, u    \
	VADDPS  EXP4, u, u \
	VMULPS  x, u, u    \
	VADDPS  EXP3, u, u \
	VMULPS  x, u, u    \
	VADDPS  EXP2, u, u \
	VMULPS  x, x, q    \
	VMULPS  u, q, u    \
	VADDPS  x, u, u    \
	VADDPS  ONE, u, u  \
	POW2(t, q, u)

// SIGMOID: q = Sigmoid(x). Keeps x, clobbers a, t, u.
#define SIGMOID(x, a, t, q, u) \
	VORPS   SIGN, x, a  \
	EXP(a, t, q, u)     \
	VADDPS  ONE, q, u   \
	VMOVUPS ONE, t      \
	SELECT(x, q, t)     \
	VDIVPS  u, t, q

// TANH: q = Tanh(x). Keeps x, clobbers a, t, u, s, m.
#define TANH(x, a, t, q, u, s, m) \
	VANDPS  NOTSIGN, x, a \
	VSUBPS  SMALL, a, m  \
	VMULPS  a, a, t      \
	VMULPS  TANH5, t, s  \
	VADDPS  TANH4, s, s  \
	VMULPS  t, s, s      \
	VADDPS  TANH3, s, s  \
	VMULPS  t, s, s      \
	VADDPS  TANH2, s, s  \
	VMULPS  t, s, s      \
	VADDPS  TANH1, s, s  \
	VMULPS  t, s, s      \
	VMULPS  a, s, s      \
	VADDPS  a, s, s      \
	VADDPS  a, a, a      \
	EXP(a, t, q, u)      \
	VADDPS  ONE, q, q    \
	VMOVUPS TWO, t       \
	VDIVPS  q, t, t      \
	VMOVUPS ONE, q       \
	VSUBPS  t, q, q      \
	SELECT(m, s, q)      \
	VANDPS  SIGN, x, t   \
	VORPS   t, q, q

// func exp(dst, x *float32, n int, shift float32)
TEXT FN_exp(SB), NOSPLIT, $0-28
	MOVQ         dst+0(FP), DI
	MOVQ         x+8(FP), SI
	COUNT(n+16(FP))
	VBROADCASTSS shift+24(FP), V5
	CONSTANTS
loop:
	VMOVUPS (SI)(AX*1), V0
	VSUBPS  V5, V0, V0
	EXP(V0, V1, V2, V3)
	VMOVUPS V2, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func sigmoid(dst, x *float32, n int)
TEXT FN_sigmoid(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	COUNT(n+16(FP))
	CONSTANTS
loop:
	VMOVUPS (SI)(AX*1), V0
	SIGMOID(V0, V1, V2, V3, V4)
	VMOVUPS V3, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func softcap(y, x *float32, n int, cap float32)
TEXT FN_softcap(SB), NOSPLIT, $0-28
	MOVQ         y+0(FP), DI
	MOVQ         x+8(FP), SI
	COUNT(n+16(FP))
	VBROADCASTSS cap+24(FP), V7
	CONSTANTS
loop:
	VMOVUPS (SI)(AX*1), V0
	VDIVPS  V7, V0, V0
	TANH(V0, V1, V2, V3, V4, V5, V6)
	VMULPS  V7, V3, V3
	VMOVUPS V3, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func siluMul(y, gate, up *float32, n int)
TEXT FN_siluMul(SB), NOSPLIT, $0-32
	MOVQ y+0(FP), DI
	MOVQ gate+8(FP), SI
	MOVQ up+16(FP), DX
	COUNT(n+24(FP))
	CONSTANTS
loop:
	VMOVUPS (SI)(AX*1), V0
	SIGMOID(V0, V1, V2, V3, V4)
	VMULPS  V3, V0, V0
	VMULPS  (DX)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func siluMulBackward(dgate, dup, dy, gate, up *float32, n int)
TEXT FN_siluMulBackward(SB), NOSPLIT, $0-48
	MOVQ dgate+0(FP), DI
	MOVQ dup+8(FP), R9
	MOVQ dy+16(FP), BX
	MOVQ gate+24(FP), SI
	MOVQ up+32(FP), DX
	COUNT(n+40(FP))
	CONSTANTS
loop:
	VMOVUPS (SI)(AX*1), V0
	SIGMOID(V0, V1, V2, V3, V4)
	VMOVUPS (BX)(AX*1), V5
	VMULPS  V3, V0, V0         // a
	VMULPS  (DX)(AX*1), V5, V6 // dy*up
	VMULPS  V0, V5, V5
	VMOVUPS ONE, V1
	VSUBPS  V3, V1, V1
	VMULPS  V1, V0, V0
	VADDPS  V3, V0, V0
	VMULPS  V0, V6, V6
	VMOVUPS V5, (R9)(AX*1)
	VMOVUPS V6, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func geluMul(y, gate, up *float32, n int)
TEXT FN_geluMul(SB), NOSPLIT, $0-32
	MOVQ y+0(FP), DI
	MOVQ gate+8(FP), SI
	MOVQ up+16(FP), DX
	COUNT(n+24(FP))
	CONSTANTS
loop:
	VMOVUPS (SI)(AX*1), V0
	VMULPS  V0, V0, V5
	VMULPS  GELU3, V5, V5
	VADDPS  GELU1, V5, V5
	VMULPS  V0, V5, V5
	SIGMOID(V5, V1, V2, V3, V4)
	VMULPS  V3, V0, V0
	VMULPS  (DX)(AX*1), V0, V0
	VMOVUPS V0, (DI)(AX*1)
	AGAIN(loop)
	DONE

// func geluMulBackward(dgate, dup, dy, gate, up *float32, n int)
TEXT FN_geluMulBackward(SB), NOSPLIT, $0-48
	MOVQ dgate+0(FP), DI
	MOVQ dup+8(FP), R9
	MOVQ dy+16(FP), BX
	MOVQ gate+24(FP), SI
	MOVQ up+32(FP), DX
	COUNT(n+40(FP))
	CONSTANTS
loop:
	VMOVUPS (SI)(AX*1), V0
	VMULPS  V0, V0, V7
	VMULPS  GELU3, V7, V5
	VADDPS  GELU1, V5, V5
	VMULPS  V0, V5, V5
	SIGMOID(V5, V1, V2, V3, V4)
	VMOVUPS (BX)(AX*1), V5
	VMULPS  V3, V0, V0         // a
	VMULPS  (DX)(AX*1), V5, V6 // dy*up
	VMULPS  V0, V5, V5
	VMOVUPS ONE, V1
	VSUBPS  V3, V1, V1
	VMULPS  V1, V0, V0
	VMULPS  GELU9, V7, V7
	VADDPS  GELU1, V7, V7
	VMULPS  V7, V0, V0
	VADDPS  V3, V0, V0
	VMULPS  V0, V6, V6
	VMOVUPS V5, (R9)(AX*1)
	VMOVUPS V6, (DI)(AX*1)
	AGAIN(loop)
	DONE
