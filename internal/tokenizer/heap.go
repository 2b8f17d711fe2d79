package tokenizer

// heap is a binary heap; top is what is before all others.
type heap[T interface{ before(T) bool }] []T

func (p *heap[T]) push(x T) {
	h := append(*p, x)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !x.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = x
	*p = h
}

// pop removes and returns the top. The heap must not be empty.
func (p *heap[T]) pop() T {
	h := *p
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*p = h
	i := 0
	for {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(last) {
			break
		}
		h[i] = h[c]
		i = c
	}
	if len(h) > 0 {
		h[i] = last
	}
	return top
}
