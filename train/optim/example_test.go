package optim_test

import (
	"fmt"

	"github.com/graft-lora/graft/train/optim"
)

func Example() {
	w, g := []float32{3, -2}, make([]float32, 2)
	params := []optim.Param{{Name: "w", Rows: 1, Cols: 2, Value: w, Grad: g, Rate: 1}}
	opt, err := optim.New(optim.DefaultSettings("adamw"), params)
	if err != nil {
		fmt.Println(err)
		return
	}
	rate, err := optim.NewSchedule(optim.ScheduleSettings{Name: "cosine", Warmup: 10, Total: 400}, 0.1)
	if err != nil {
		fmt.Println(err)
		return
	}
	for step := range 400 {
		for i := range w {
			g[i] = 2 * (w[i] - 1) // of the sum of (w − 1)²
		}
		optim.ClipNorm(params, 1, 2)
		opt.Step(rate(step))
	}
	fmt.Printf("%.3f\n", w)
	// Output: [1.000 1.000]
}
