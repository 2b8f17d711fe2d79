// Package objective has the losses that an adapter can be trained for beside the
// plain one: those that learn from answers which people preferred, or found good
// or bad.
//
// Each is a function of the log-probabilities of whole completions, under the model
// as it is (the policy) and, for some, under the model with the adapter off (the
// reference). What a pass backward needs of it is one number for each completion:
// the derivative of the loss by the log-probability of any of its tokens.
//
//	o, err := objective.New(objective.Settings{Name: "dpo"})
//	r := o.Example(objective.Example{
//		Chosen:   objective.Completion{LogP: -12.1, Ref: -12.4, Tokens: 9},
//		Rejected: objective.Completion{LogP: -20.3, Ref: -19.8, Tokens: 14},
//	}, 0)
//	fmt.Println(r.Loss, r.Chosen, r.Rejected)
//
// The formulas are those of TRL; the tests compare with recordings of them. Nothing
// here is random or keeps state, and everything is safe for concurrent use.
package objective
