package train

import (
	"fmt"

	"github.com/graft-lora/graft/internal/kernel"
	"github.com/graft-lora/graft/train/model"
)

// AutoCompute is the value of [Config].Compute that leaves the choice to the machine.
const AutoCompute = "auto"

// worthIt is how much faster bf16 must be to be chosen, since it is less exact.
const worthIt = 1.2

// chooseCompute puts the name of an arithmetic in place of auto: that of the run that
// goes on, or else bf16 where it is measured to be faster.
func (c *Config) chooseCompute(mode Mode, told func(Progress)) {
	if c.Compute != AutoCompute {
		return
	}
	if mode == Resume {
		if was, err := ResumeConfig(c.Output); err == nil && was.Compute != AutoCompute {
			c.Compute = was.Compute
			return
		}
	}
	c.Compute = kernel.Float32.String()
	if !kernel.BF16.Available() {
		told(Progress{Phase: "reading", Note: fmt.Sprintf("products in %s: %s", c.Compute, kernel.BF16.Lacks())})
		return
	}
	p := kernel.NewPool(c.Threads)
	defer p.Close()
	fast, exact := 0.0, 0.0
	for range 3 { // in turn, since other work comes and goes
		fast, exact = max(fast, kernel.BF16.Speed(p)), max(exact, kernel.Float32.Speed(p))
	}
	if fast > worthIt*exact {
		c.Compute = kernel.BF16.String()
	}
	told(Progress{Phase: "reading", Note: fmt.Sprintf("products in %s: measured %.0f GFLOP/s in bf16, %.0f in float32", c.Compute, fast, exact)})
}

// compute is the arithmetic that Compute names; auto, which chooseCompute replaces, is
// float32.
func (c *Config) compute() (kernel.Compute, error) {
	if c.Compute == "" || c.Compute == AutoCompute {
		return kernel.Float32, nil
	}
	how, err := kernel.ParseCompute(c.Compute)
	if err != nil {
		return how, fmt.Errorf("train: compute is %q: there are float32, bf16 and auto", c.Compute)
	}
	return how, nil
}

func (c *Config) modelOptions() model.Options {
	how, _ := c.compute() // Check has seen it
	return model.Options{Threads: c.Threads, KeepLayers: c.KeepLayers, HeadMemory: c.HeadMemory, Context: c.Context, Compute: how}
}
