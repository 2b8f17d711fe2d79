package optim

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/graft-lora/graft/internal/fmath"
)

// Schedule gives the learning rate of an optimizer step, counted from zero.
type Schedule func(step int) float64

// ScheduleSettings says how the learning rate goes. The names and meanings are
// those of transformers' get_scheduler. A field that a schedule does not have must be
// zero; zero means the default that is given.
type ScheduleSettings struct {
	Name       string  `json:"name" yaml:"name"`                                   // a name that [ScheduleNames] lists
	Warmup     int     `json:"warmup" yaml:"warmup"`                               // steps of rising rate; constant has none
	Total      int     `json:"total" yaml:"total"`                                 // optimizer steps in all
	Cycles     float64 `json:"cycles,omitempty" yaml:"cycles,omitempty"`           // cosine: half a wave, 0.5; cosine_with_restarts: 1
	MinRatio   float64 `json:"min_ratio,omitempty" yaml:"min_ratio,omitempty"`     // lowest rate as a part of the rate: cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay
	WarmupFrom float64 `json:"warmup_from,omitempty" yaml:"warmup_from,omitempty"` // cosine_warmup_with_min_lr: first rate as a part of the rate
	Timescale  int     `json:"timescale,omitempty" yaml:"timescale,omitempty"`     // inverse_sqrt: the warm-up, or 10000 without one
	Power      float64 `json:"power,omitempty" yaml:"power,omitempty"`             // polynomial: 1
	End        float64 `json:"end,omitempty" yaml:"end,omitempty"`                 // polynomial: last rate, 1e-7
	Stable     int     `json:"stable,omitempty" yaml:"stable,omitempty"`           // warmup_stable_decay: steps at the full rate; all that decay and warm-up leave
	Decay      int     `json:"decay,omitempty" yaml:"decay,omitempty"`             // warmup_stable_decay: steps of falling rate
	WarmupType string  `json:"warmup_type,omitempty" yaml:"warmup_type,omitempty"` // warmup_stable_decay: linear, cosine, 1-sqrt
	DecayType  string  `json:"decay_type,omitempty" yaml:"decay_type,omitempty"`   // warmup_stable_decay: cosine, linear, 1-sqrt
}

// schedules give the factor on the rate of step s; rate is the peak.
var schedules = map[string]func(c ScheduleSettings, rate float64) Schedule{
	"constant":                  func(ScheduleSettings, float64) Schedule { return func(int) float64 { return 1 } },
	"constant_with_warmup":      func(c ScheduleSettings, _ float64) Schedule { return c.warm(func(int) float64 { return 1 }) },
	"linear":                    linear,
	"cosine":                    cosine,
	"cosine_with_restarts":      restarts,
	"cosine_with_min_lr":        cosine,
	"cosine_warmup_with_min_lr": cosineWarmup,
	"inverse_sqrt":              inverseSqrt,
	"polynomial":                polynomial,
	"warmup_stable_decay":       warmupStableDecay,
}

// ScheduleNames lists the schedules.
func ScheduleNames() []string { return slices.Sorted(maps.Keys(schedules)) }

// NewSchedule makes a schedule whose peak is rate.
func NewSchedule(c ScheduleSettings, rate float64) (Schedule, error) {
	if c.Name == "wsd" { // as people call it
		c.Name = "warmup_stable_decay"
	}
	make, ok := schedules[c.Name]
	if !ok {
		return nil, fmt.Errorf("optim: no schedule is called %q: there are %s", c.Name, strings.Join(ScheduleNames(), ", "))
	}
	if c.Warmup < 0 || c.Total < 0 || c.Decay < 0 || c.Stable < 0 {
		return nil, fmt.Errorf("optim: schedule %s: numbers of steps cannot be negative", c.Name)
	}
	for _, kind := range []string{c.WarmupType, c.DecayType} {
		switch kind {
		case "", "linear", "cosine", "1-sqrt":
		default:
			return nil, fmt.Errorf("optim: schedule %s: no way to rise or fall is called %q: there are linear, cosine, 1-sqrt", c.Name, kind)
		}
	}
	if err := c.fits(); err != nil {
		return nil, err
	}
	factor := make(c, rate)
	return func(step int) float64 { return rate * factor(step) }, nil
}

// fits says which setting is given to a schedule that has no use for it, so that nobody
// waits for what will not happen.
func (c ScheduleSettings) fits() error {
	for _, f := range []struct {
		name  string
		given bool
		of    []string
	}{
		{"cycles", c.Cycles != 0, []string{"cosine", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "cosine_with_restarts", "warmup_stable_decay"}},
		{"min_ratio", c.MinRatio != 0, []string{"cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay"}},
		{"warmup_from", c.WarmupFrom != 0, []string{"cosine_warmup_with_min_lr"}},
		{"timescale", c.Timescale != 0, []string{"inverse_sqrt"}},
		{"power", c.Power != 0, []string{"polynomial"}},
		{"end", c.End != 0, []string{"polynomial"}},
		{"stable", c.Stable != 0, []string{"warmup_stable_decay"}},
		{"decay", c.Decay != 0, []string{"warmup_stable_decay"}},
		{"warmup_type", c.WarmupType != "", []string{"warmup_stable_decay"}},
		{"decay_type", c.DecayType != "", []string{"warmup_stable_decay"}},
	} {
		if f.given && !slices.Contains(f.of, c.Name) {
			return fmt.Errorf("optim: schedule %s has no %s: it goes with %s", c.Name, f.name, strings.Join(f.of, ", "))
		}
	}
	if c.Name == "warmup_stable_decay" && c.Decay == 0 {
		return fmt.Errorf("optim: schedule %s needs decay, the number of steps in which the rate falls at the end", c.Name)
	}
	return nil
}

// warm puts the linear warm-up, which begins at zero, before f.
func (c ScheduleSettings) warm(f Schedule) Schedule {
	return func(s int) float64 {
		if s < c.Warmup {
			return float64(s) / float64(max(1, c.Warmup))
		}
		return f(s)
	}
}

// progress is the part of the steps after the warm-up that is over at step s.
func (c ScheduleSettings) progress(s int) float64 {
	return float64(s-c.Warmup) / float64(max(1, c.Total-c.Warmup))
}

func linear(c ScheduleSettings, _ float64) Schedule {
	return c.warm(func(s int) float64 {
		return math.Max(0, float64(c.Total-s)/float64(max(1, c.Total-c.Warmup)))
	})
}

// wave is the cosine that falls from 1 to 0 over progress 0 … 1 for half a cycle.
func wave(cycles, progress float64) float64 {
	return 0.5 * (1 + fmath.Cos(float64(math.Pi*cycles)*2*progress))
}

func or(v, def float64) float64 {
	if v == 0 {
		return def
	}
	return v
}

func cosine(c ScheduleSettings, _ float64) Schedule {
	low := c.MinRatio
	if c.Name == "cosine" {
		low = 0
	}
	return c.warm(func(s int) float64 {
		f := wave(or(c.Cycles, 0.5), c.progress(s))
		return math.Max(0, float64(f*(1-low))+low)
	})
}

func restarts(c ScheduleSettings, _ float64) Schedule {
	return c.warm(func(s int) float64 {
		p := c.progress(s)
		if p >= 1 {
			return 0
		}
		return math.Max(0, 0.5*(1+fmath.Cos(math.Pi*math.Mod(or(c.Cycles, 1)*p, 1))))
	})
}

// cosineWarmup counts steps from one, so that neither end is wasted on a rate of zero.
func cosineWarmup(c ScheduleSettings, _ float64) Schedule {
	return func(s int) float64 {
		if s < c.Warmup {
			if c.WarmupFrom == 0 {
				return float64(s+1) / float64(max(1, c.Warmup))
			}
			return c.WarmupFrom + float64((1-c.WarmupFrom)*float64(s)/float64(max(1, c.Warmup-1)))
		}
		f := wave(or(c.Cycles, 0.5), c.progress(s+1))
		return math.Max(0, float64(f*(1-c.MinRatio))+c.MinRatio)
	}
}

func inverseSqrt(c ScheduleSettings, _ float64) Schedule {
	scale := c.Timescale
	if scale == 0 {
		scale = c.Warmup
	}
	if scale == 0 {
		scale = 10000
	}
	return c.warm(func(s int) float64 {
		return 1 / math.Sqrt(float64(s+scale-c.Warmup)/float64(scale))
	})
}

func polynomial(c ScheduleSettings, rate float64) Schedule {
	end, power := or(c.End, 1e-7), or(c.Power, 1)
	return c.warm(func(s int) float64 {
		if s > c.Total {
			return end / rate
		}
		left := 1 - c.progress(s)
		return (float64((rate-end)*fmath.Pow(left, power)) + end) / rate
	})
}

func warmupStableDecay(c ScheduleSettings, _ float64) Schedule {
	stable := c.Stable
	if stable == 0 {
		stable = max(0, c.Total-c.Warmup-c.Decay)
	}
	lift := func(f float64) float64 { return math.Max(0, float64(f*(1-c.MinRatio))+c.MinRatio) }
	return func(s int) float64 {
		if s < c.Warmup {
			p := float64(s) / float64(max(1, c.Warmup))
			switch c.WarmupType {
			case "cosine":
				p = 0.5 * (1 - fmath.Cos(math.Pi*p))
			case "1-sqrt":
				p = 1 - math.Sqrt(1-p)
			}
			return lift(p)
		}
		if s < c.Warmup+stable {
			return 1
		}
		if s >= c.Warmup+stable+c.Decay {
			return c.MinRatio
		}
		p := float64(s-c.Warmup-stable) / float64(max(1, c.Decay))
		switch c.DecayType {
		case "linear":
			return lift(1 - p)
		case "1-sqrt":
			return lift(1 - math.Sqrt(p))
		}
		return lift(wave(or(c.Cycles, 0.5), p))
	}
}
