package objective

import (
	"math"

	"github.com/graft-lora/graft/internal/fmath"
)

// sigmoid is 1/(1+e^-x), exact at both ends.
func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + fmath.Exp(-x))
	}
	e := fmath.Exp(x)
	return e / (1 + e)
}

// logSigmoid is log(sigmoid(x)).
func logSigmoid(x float64) float64 {
	return math.Min(x, 0) - fmath.Log1p(fmath.Exp(-math.Abs(x)))
}

// smoothed is the loss of a comparison x with a part e of wrong preferences, and its derivative.
func smoothed(x, e float64) (loss, d float64) {
	return float64(-(1-e)*logSigmoid(x)) - float64(e*logSigmoid(-x)), float64(-(1-e)*sigmoid(-x)) + float64(e*sigmoid(x))
}

// compared fills in the rewards of log-ratios.
func (o *Objective) compared(e *Example, r Result) Result {
	r.ChosenReward, r.RejectedReward = o.Beta*e.Chosen.ratio(), o.Beta*e.Rejected.ratio()
	return r
}

// margin is beta times the difference of the log-ratios of a pair.
func (o *Objective) margin(e *Example) float64 {
	return float64(o.Beta * (e.Chosen.ratio() - e.Rejected.ratio()))
}

func sigmoidLoss(o *Objective, e *Example, _ float64) Result {
	loss, d := smoothed(o.margin(e), o.LabelSmoothing)
	return o.compared(e, Result{Loss: loss, Chosen: o.Beta * d, Rejected: -o.Beta * d})
}

func hingeLoss(o *Objective, e *Example, _ float64) Result {
	x := o.margin(e)
	if x >= 1 {
		return o.compared(e, Result{})
	}
	return o.compared(e, Result{Loss: 1 - x, Chosen: -o.Beta, Rejected: o.Beta})
}

func ipoLoss(o *Objective, e *Example, _ float64) Result {
	c, r := float64(e.Chosen.Tokens), float64(e.Rejected.Tokens)
	x := e.Chosen.ratio()/c - e.Rejected.ratio()/r - 1/(2*o.Beta)
	return o.compared(e, Result{Loss: x * x, Chosen: 2 * x / c, Rejected: -2 * x / r})
}

func robustLoss(o *Objective, e *Example, _ float64) Result {
	x, s := o.margin(e), o.LabelSmoothing
	loss := (float64(-(1-s)*logSigmoid(x)) + float64(s*logSigmoid(-x))) / (1 - float64(2*s))
	d := o.Beta * (float64(-(1-s)*sigmoid(-x)) - float64(s*sigmoid(x))) / (1 - float64(2*s))
	return o.compared(e, Result{Loss: loss, Chosen: d, Rejected: -d})
}

// exoSmoothing stands for no smoothing, which would make the divergence infinite.
const exoSmoothing = 1e-3

func exoLoss(o *Objective, e *Example, _ float64) Result {
	s := o.LabelSmoothing
	if s == 0 {
		s = exoSmoothing
	}
	x := o.margin(e)
	q, not := sigmoid(x), sigmoid(-x)
	loss := float64(q*(logSigmoid(x)-fmath.Log(1-s))) + float64(not*(logSigmoid(-x)-fmath.Log(s)))
	d := o.Beta * q * not * (x - fmath.Log(1-s) + fmath.Log(s))
	return o.compared(e, Result{Loss: loss, Chosen: d, Rejected: -d})
}

func apoZeroLoss(o *Objective, e *Example, _ float64) Result {
	c, r := o.Beta*e.Chosen.ratio(), o.Beta*e.Rejected.ratio()
	return o.compared(e, Result{Loss: sigmoid(-c) + sigmoid(r),
		Chosen: -o.Beta * sigmoid(c) * sigmoid(-c), Rejected: o.Beta * sigmoid(r) * sigmoid(-r)})
}

func apoDownLoss(o *Objective, e *Example, _ float64) Result {
	c, x := o.Beta*e.Chosen.ratio(), o.margin(e)
	d := float64(o.Beta * sigmoid(x) * sigmoid(-x))
	return o.compared(e, Result{Loss: sigmoid(c) + sigmoid(-x), Chosen: float64(o.Beta*sigmoid(c)*sigmoid(-c)) - d, Rejected: d})
}

// leastDoubt keeps the odds of an answer that is certain finite.
const leastDoubt = 1e-9

// logOdds is log(p/(1-p)) of the mean log-probability a, and its derivative.
func logOdds(a float64) (odds, d float64) {
	a = math.Min(a, -leastDoubt)
	not := -fmath.Expm1(a)
	return a - fmath.Log(not), 1 / not
}

func orpoLoss(o *Objective, e *Example, _ float64) Result {
	c, dc := logOdds(e.Chosen.mean())
	r, dr := logOdds(e.Rejected.mean())
	d := -o.Beta * sigmoid(r-c)
	return Result{Loss: -o.Beta * logSigmoid(c-r), Chosen: d * dc / float64(e.Chosen.Tokens), Rejected: -d * dr / float64(e.Rejected.Tokens),
		ChosenReward: o.Beta * e.Chosen.mean(), RejectedReward: o.Beta * e.Rejected.mean()}
}

func simpoLoss(o *Objective, e *Example, _ float64) Result {
	c, r := float64(o.Beta*e.Chosen.mean()), float64(o.Beta*e.Rejected.mean())
	loss, d := smoothed(c-r-o.Gamma, o.LabelSmoothing)
	return Result{Loss: loss, Chosen: o.Beta * d / float64(e.Chosen.Tokens), Rejected: -o.Beta * d / float64(e.Rejected.Tokens),
		ChosenReward: c, RejectedReward: r}
}

func cpoLoss(o *Objective, e *Example, _ float64) Result {
	c, r := float64(o.Beta*e.Chosen.LogP), float64(o.Beta*e.Rejected.LogP)
	loss, d := smoothed(c-r, o.LabelSmoothing)
	return Result{Loss: loss, Chosen: o.Beta * d, Rejected: -o.Beta * d, ChosenReward: c, RejectedReward: r}
}

func ktoLoss(o *Objective, e *Example, kl float64) Result {
	w, sign := o.Desirable, 1.0
	if e.Bad {
		w, sign = o.Undesirable, -1
	}
	x := sign * o.Beta * (e.Chosen.ratio() - kl)
	return Result{Loss: w * sigmoid(-x), Chosen: -w * sign * o.Beta * sigmoid(x) * sigmoid(-x), ChosenReward: o.Beta * e.Chosen.ratio()}
}
