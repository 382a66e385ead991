package cluster

import (
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// mergerName is written into the state database: a program with another
// merge operator does not open it.
const mergerName = "edgerelay.counters.v1"

func (n *Node) merger() *pebble.Merger {
	merge := n.opt.Merge
	return &pebble.Merger{Name: mergerName, Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		return &valueMerger{merge: merge, sum: append([]byte(nil), value...)}, nil
	}}
}

// valueMerger sums; since sums commute, older and newer are alike.
type valueMerger struct {
	merge      func(dst, a, b []byte) []byte
	sum, spare []byte
}

func (m *valueMerger) MergeNewer(value []byte) error {
	m.spare = m.merge(m.spare[:0], m.sum, value)
	m.sum, m.spare = m.spare, m.sum
	return nil
}

func (m *valueMerger) MergeOlder(value []byte) error { return m.MergeNewer(value) }

func (m *valueMerger) Finish(bool) ([]byte, io.Closer, error) { return m.sum, nil, nil }
