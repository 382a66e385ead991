package cluster

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ledger is a machine that counts how often each entry was applied: under its
// number by reading and writing, in one sum by merging.
type ledger struct {
	mu       sync.Mutex
	restored int
}

func (*ledger) Apply(b *Batch, entries []Entry) ([]any, error) {
	results := make([]any, len(entries))
	for i, e := range entries {
		if len(e.Data) < 8 {
			return nil, fmt.Errorf("entry %d is cut short", e.Index)
		}
		key := append([]byte{'n'}, e.Data[:8]...)
		v, _, err := b.Get(key)
		if err != nil {
			return nil, err
		}
		n := byte(1)
		if len(v) > 0 {
			n = v[0] + 1
		}
		if err := b.Set(key, []byte{n}); err != nil {
			return nil, err
		}
		if err := b.Merge([]byte{'s'}, binary.BigEndian.AppendUint64(nil, 1)); err != nil {
			return nil, err
		}
		results[i] = n
	}
	return results, nil
}

func (*ledger) Applied([]Entry, []any) {}

func (l *ledger) Restored() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restored++
	return nil
}

// read returns how often each number was applied, and the sum.
func (*ledger) read(t testing.TB, v View) (counts map[uint64]int, sum uint64) {
	t.Helper()
	counts = map[uint64]int{}
	if err := v.Scan([]byte{'n'}, []byte{'n' + 1}, false, func(k, v []byte) bool {
		counts[binary.BigEndian.Uint64(k[1:])] = int(v[0])
		return true
	}); err != nil {
		t.Fatal(err)
	}
	row, ok, err := v.Get([]byte{'s'})
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		sum = binary.BigEndian.Uint64(row)
	}
	return counts, sum
}

func addNumbers(dst, a, b []byte) []byte {
	return binary.BigEndian.AppendUint64(dst, binary.BigEndian.Uint64(a)+binary.BigEndian.Uint64(b))
}

func testOptions(t testing.TB, fs vfs.FS) Options {
	return Options{Dir: "data", FS: fs, NodeID: "n", Merge: addNumbers, FlushBytes: 32 << 10,
		Fatal: func(err error) { t.Logf("fatal: %v", err) }}
}

// start opens a node with groups 0..n-1 and waits until it leads them.
func start(t testing.TB, opt Options, f faults, n int) (*Node, []*Group, error) {
	t.Helper()
	node, err := open(opt, f)
	if err != nil {
		return nil, nil, err
	}
	var groups []*Group
	for id := range n {
		g, err := node.StartGroup(GroupID(id), &ledger{})
		if err != nil {
			node.Close()
			return nil, nil, err
		}
		led := make(chan struct{})
		var once sync.Once
		g.Watch(func(l Leadership) {
			if l.Leader {
				once.Do(func() { close(led) })
			}
		})
		<-led
		groups = append(groups, g)
	}
	return node, groups, nil
}

func mustStart(t testing.TB, opt Options, n int) (*Node, []*Group) {
	t.Helper()
	node, groups, err := start(t, opt, faults{}, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	return node, groups
}

func number(n uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, n), make([]byte, 200)...)
}

func propose(t testing.TB, g *Group, n uint64) {
	t.Helper()
	if _, err := g.Propose(number(n)).Wait(); err != nil {
		t.Fatalf("propose %d: %v", n, err)
	}
}
