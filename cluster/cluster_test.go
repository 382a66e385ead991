package cluster

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRestartKeepsEverything(t *testing.T) {
	fs := vfs.NewMem()
	node, groups := mustStart(t, testOptions(t, fs), 1)
	for n := range uint64(500) {
		propose(t, groups[0], n)
	}
	term, id := groups[0].Term(), node.StoreID()
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	node, groups = mustStart(t, testOptions(t, fs), 1)
	counts, sum := (&ledger{}).read(t, groups[0].View())
	if len(counts) != 500 || sum != 500 {
		t.Fatalf("%d numbers, sum %d; want 500", len(counts), sum)
	}
	if groups[0].Term() <= term {
		t.Errorf("term %d did not rise above %d", groups[0].Term(), term)
	}
	if node.StoreID() != id {
		t.Error("the store's identity changed")
	}
}

// The log is cut as the state is flushed, never above it.
func TestLogIsCutUpToTheFlushedState(t *testing.T) {
	opt := testOptions(t, vfs.NewMem())
	opt.FlushBytes = 1 << 40
	node, groups := mustStart(t, opt, 1)
	g := groups[0]
	for n := range uint64(300) {
		propose(t, g, n)
	}
	last, _ := g.logs.LastIndex()
	if err := g.logs.DeleteRange(1, last-1); err == nil {
		t.Fatal("the log was cut above the flushed state")
	}
	node.flusher.snapshotAll()
	if cut := g.snapshots.index(); cut < 300 {
		t.Fatalf("snapshot at %d, want the end of the log", cut)
	}
	if err := g.logs.DeleteRange(1, last-1); err != nil {
		t.Fatal(err)
	}
	if first, _ := g.logs.FirstIndex(); first != last {
		t.Errorf("the log begins at %d, want %d", first, last)
	}
}

func TestMissingStateIsTold(t *testing.T) {
	fs := vfs.NewMem()
	node, groups := mustStart(t, testOptions(t, fs), 1)
	propose(t, groups[0], 1)
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fs.RemoveAll("data/state"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testOptions(t, fs)); err == nil {
		t.Fatal("a log without its state was opened as if nothing was lost")
	}
}

// A snapshot's stream, cut into odd pieces, makes the receiver's group equal
// to the sender's, whatever it held before.
func TestSnapshotStream(t *testing.T) {
	_, from := mustStart(t, testOptions(t, vfs.NewMem()), 1)
	for n := range uint64(2000) {
		propose(t, from[0], n)
	}
	from[0].node.flusher.snapshotAll()
	stream := readSnapshot(t, from[0])

	fs := vfs.NewMem()
	node, to := mustStart(t, testOptions(t, fs), 1)
	propose(t, to[0], 999_999)
	meta := from[0].snapshots.meta
	receive(t, to[0], meta, stream)
	if err := (*fsm)(to[0]).Restore(io.NopCloser(bytes.NewReader(nil))); err != nil {
		t.Fatal(err)
	}
	counts, sum := (&ledger{}).read(t, to[0].View())
	if len(counts) != 2000 || sum != 2000 || counts[999_999] != 0 {
		t.Fatalf("%d numbers, sum %d, foreign %d", len(counts), sum, counts[999_999])
	}
	if to[0].AppliedIndex() != from[0].AppliedIndex() {
		t.Errorf("applied index %d, want %d", to[0].AppliedIndex(), from[0].AppliedIndex())
	}
	if n := to[0].machine.(*ledger).restored; n != 1 {
		t.Errorf("the machine was told %d times", n)
	}
	if names, _ := fs.List(node.receivedDir()); len(names) != 0 {
		t.Errorf("parts left behind: %v", names)
	}
}

// A received snapshot whose install was cut off by a crash is installed at
// the next start.
func TestReceivedSnapshotSurvivesACrash(t *testing.T) {
	_, from := mustStart(t, testOptions(t, vfs.NewMem()), 1)
	for n := range uint64(100) {
		propose(t, from[0], n)
	}
	from[0].node.flusher.snapshotAll()
	fs := vfs.NewCrashableMem()
	_, to := mustStart(t, testOptions(t, fs), 1)
	receive(t, to[0], from[0].snapshots.meta, readSnapshot(t, from[0]))
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	node, err := Open(testOptions(t, after))
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	g := &Group{id: 0, node: node}
	if g.snapshots, err = openSnapshots(g); err != nil {
		t.Fatal(err)
	}
	if counts, _ := (&ledger{}).read(t, g.View()); len(counts) != 100 {
		t.Errorf("%d numbers, want 100", len(counts))
	}
}

func TestDamagedStreamIsRefused(t *testing.T) {
	_, from := mustStart(t, testOptions(t, vfs.NewMem()), 1)
	for n := range uint64(50) {
		propose(t, from[0], n)
	}
	from[0].node.flusher.snapshotAll()
	stream := readSnapshot(t, from[0])
	for name, damaged := range map[string][]byte{
		"cut short": stream[:len(stream)-5],
		"flipped":   append(append(append([]byte{}, stream[:500]...), stream[500]^1), stream[501:]...),
		"more":      append(append([]byte{}, stream...), 0, 0, 0, 0, 0),
		"other":     []byte("something else entirely, longer than the magic"),
	} {
		_, to := mustStart(t, testOptions(t, vfs.NewMem()), 1)
		m := *from[0].snapshots.meta
		k := &sink{store: to[0].snapshots, meta: &m}
		_, err := k.Write(damaged)
		if err == nil {
			err = k.Close()
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if err := k.Cancel(); err != nil {
			t.Errorf("%s: cancel: %v", name, err)
		}
	}
}

func readSnapshot(t *testing.T, g *Group) []byte {
	t.Helper()
	meta, r, err := g.snapshots.Open(g.snapshots.meta.id())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != meta.Size {
		t.Fatalf("the stream has %d bytes, its meta says %d", len(b), meta.Size)
	}
	return b
}

func receive(t *testing.T, g *Group, m *snapshotMeta, stream []byte) {
	t.Helper()
	k, err := g.snapshots.Create(1, m.Index, m.Term, raft.DecodeConfiguration(m.Configuration), m.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	for len(stream) > 0 {
		n := min(len(stream), 777)
		if _, err := k.Write(stream[:n]); err != nil {
			t.Fatal(err)
		}
		stream = stream[n:]
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
}

// A failed write of the log ends the process; it is never tried again.
func TestFailedLogWriteIsFatal(t *testing.T) {
	opt := testOptions(t, vfs.NewMem())
	fatal := make(chan error, 8)
	s := &logStore{fatal: func(err error) { fatal <- err }}
	if err := s.fail(errors.New("disk")); err == nil || len(fatal) != 1 {
		t.Fatal("not fatal")
	}
	// An entry that the machine cannot understand is fatal too, and nothing
	// after it is applied.
	opt.Fatal = func(err error) { fatal <- err }
	_, groups := mustStart(t, opt, 1)
	if _, err := groups[0].Propose([]byte("short")).Wait(); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if len(fatal) != 2 {
		t.Error("an entry that cannot be applied did not end the process")
	}
	if _, err := groups[0].Propose(number(1)).Wait(); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("applied after a fatal entry: %v", err)
	}
}

func TestPendingIsBounded(t *testing.T) {
	opt := testOptions(t, vfs.NewMem())
	opt.MaxPendingBytes = 1000
	_, groups := mustStart(t, opt, 1)
	if _, err := groups[0].Propose(make([]byte, 2000)).Wait(); !errors.Is(err, ErrOverloaded) {
		t.Errorf("got %v", err)
	}
	propose(t, groups[0], 1)
	if n := groups[0].pending.Load(); n != 0 {
		t.Errorf("%d bytes pending after the answer", n)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(uint64(7), encodeEntry(nil, &raft.Log{Index: 7, Term: 3, Data: []byte("data"), Extensions: []byte("x")}))
	f.Fuzz(func(t *testing.T, index uint64, v []byte) {
		var l raft.Log
		if decodeEntry(index, v, &l) != nil {
			return
		}
		var again raft.Log
		if err := decodeEntry(index, encodeEntry(nil, &l), &again); err != nil || !bytes.Equal(again.Data, l.Data) || again.Term != l.Term {
			t.Errorf("%v: %+v became %+v", err, l, again)
		}
		if index > 0 && decodeEntry(index-1, v, &l) == nil {
			t.Error("an entry passed in another's place")
		}
	})
}

func BenchmarkPropose(b *testing.B) {
	opt := testOptions(b, vfs.Default)
	opt.Dir = b.TempDir()
	opt.FlushBytes = 96 << 20
	node, groups, err := start(b, opt, faults{}, 1)
	if err != nil {
		b.Fatal(err)
	}
	defer node.Close()
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := groups[0].Propose(number(1)).Wait(); err != nil {
				b.Error(err)
			}
		}
	})
}
