package deliver

// ring is a first-in first-out queue that reuses its memory.
type ring[T any] struct {
	items []T // power of two long
	head  int
	n     int
}

func (r *ring[T]) len() int { return r.n }

func (r *ring[T]) push(v T) {
	if r.n == len(r.items) {
		r.resize(max(8, 2*len(r.items)))
	}
	r.items[(r.head+r.n)&(len(r.items)-1)] = v
	r.n++
}

func (r *ring[T]) pop() T {
	var zero T
	v := r.items[r.head]
	r.items[r.head] = zero
	r.head = (r.head + 1) & (len(r.items) - 1)
	r.n--
	if len(r.items) > 1024 && r.n < len(r.items)/8 {
		r.resize(len(r.items) / 2) // what a burst needed is given back
	}
	return v
}

// at is the i-th from the head.
func (r *ring[T]) at(i int) T { return r.items[(r.head+i)&(len(r.items)-1)] }

func (r *ring[T]) resize(size int) {
	items := make([]T, size)
	for i := range r.n {
		items[i] = r.at(i)
	}
	r.items, r.head = items, 0
}
