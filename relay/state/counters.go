package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/omnisales/edgerelay/relay"
)

// Counter names one number of a statistics slot.
type Counter struct {
	Kind byte
	Arg  uint32 // a state, a status code or a histogram bucket
	Type string // an event type, with the kinds that are by event
}

// Kinds of counters. Deliveries are counted in the slot in which the event
// was accepted, and follow the delivery's state, so that in every slot
// created = succeeded + dead + filtered + cancelled + pending. Attempts are
// counted in the slot in which they ran.
const (
	CountCreated  byte = 'D'
	CountState    byte = 'S' // Arg: state
	CountAttempts byte = 'A'
	CountDuration byte = 'T' // sum of durations, µs
	CountCode     byte = 'c' // Arg: status code, 0 for none
	CountLatency  byte = 'h' // Arg: histogram bucket
	CountType     byte = 'e' // created, by event type
	CountTypeEnd  byte = 'E' // by state and event type
)

// Counters is one slot's numbers.
type Counters map[Counter]int64

// encode writes the counters sorted, so that merging is one pass and every
// replica writes the same bytes.
func (c Counters) encode() []byte {
	keys := make([]Counter, 0, len(c))
	for k, n := range c {
		if n != 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b Counter) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Arg, b.Arg), cmp.Compare(a.Type, b.Type))
	})
	b := make([]byte, 0, 8*len(keys))
	for _, k := range keys {
		b = binary.AppendVarint(append(b, counterKey(k)...), c[k])
	}
	return b
}

// counterKey is self-delimiting: kind, argument (4 bytes), length, type.
func counterKey(k Counter) []byte {
	b := binary.BigEndian.AppendUint32(append(make([]byte, 0, 24), k.Kind), k.Arg)
	return putString(b, k.Type)
}

// cutCounter splits the first counter off b.
func cutCounter(b []byte) (key []byte, n int64, rest []byte, ok bool) {
	d := decoder{b: b}
	d.take(5)
	d.bytes()
	key = b[:len(b)-len(d.b)]
	n = d.sint()
	return key, n, d.b, d.err == nil
}

// compareCounters orders as encode does: a type's length is not its order.
func compareCounters(a, b []byte) int {
	return cmp.Or(bytes.Compare(a[:5], b[:5]), bytes.Compare(typeOf(a), typeOf(b)))
}

func typeOf(key []byte) []byte {
	d := decoder{b: key[5:]}
	return d.bytes()
}

// MergeCounters appends the sum of two encoded slots to dst. It is the merge
// operator of the state database, part of the disk format.
func MergeCounters(dst, a, b []byte) []byte {
	for len(a) > 0 && len(b) > 0 {
		ka, na, resta, oka := cutCounter(a)
		kb, nb, restb, okb := cutCounter(b)
		if !oka || !okb {
			break
		}
		switch c := compareCounters(ka, kb); {
		case c < 0:
			dst, a = append(dst, a[:len(a)-len(resta)]...), resta
		case c > 0:
			dst, b = append(dst, b[:len(b)-len(restb)]...), restb
		default:
			dst = binary.AppendVarint(append(dst, ka...), na+nb)
			a, b = resta, restb
		}
	}
	return append(append(dst, a...), b...)
}

// addEncoded adds an encoded slot's numbers to c.
func (c Counters) addEncoded(b []byte) error {
	for len(b) > 0 {
		key, n, rest, ok := cutCounter(b)
		if !ok {
			return errCorrupt
		}
		c[Counter{Kind: key[0], Arg: be32(key[1:5]), Type: string(typeOf(key))}] += n
		b = rest
	}
	return nil
}

// The latency histogram is log-linear: eight buckets an octave of µs, so that
// a percentile read from it is off by at most 6 %.
func latencyBucket(us int64) uint32 {
	v := uint64(max(us, 0))
	if v < 8 {
		return uint32(v)
	}
	octave := bits.Len64(v) - 4 // v>>octave is 8..15
	return uint32(octave*8) + uint32(v>>octave)
}

// bucketMiddle is the µs in the middle of a bucket.
func bucketMiddle(bucket uint32) float64 {
	if bucket < 16 {
		return float64(bucket)
	}
	octave := bucket/8 - 1
	low := uint64(bucket%8+8) << octave
	return float64(low) + float64(uint64(1)<<octave)/2
}

// Quantile reads the q-quantile (0..1) of the attempts' durations, in ms.
func (c Counters) Quantile(q float64) float64 {
	type bar struct {
		bucket uint32
		n      int64
	}
	var bars []bar
	total := int64(0)
	for k, n := range c {
		if k.Kind == CountLatency && n > 0 {
			bars = append(bars, bar{k.Arg, n})
			total += n
		}
	}
	slices.SortFunc(bars, func(a, b bar) int { return cmp.Compare(a.bucket, b.bucket) })
	rank := int64(q * float64(total))
	for _, b := range bars {
		if rank -= b.n; rank < 0 {
			return bucketMiddle(b.bucket) / 1000
		}
	}
	if len(bars) > 0 {
		return bucketMiddle(bars[len(bars)-1].bucket) / 1000
	}
	return 0
}

// Count is the number of deliveries in a state.
func (c Counters) Count(s relay.State) int64 { return c[Counter{Kind: CountState, Arg: uint32(s)}] }
