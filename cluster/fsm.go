package cluster

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// fsm is a group as raft's state machine: it writes what entries do and the
// index of the last as one batch, and skips what the state has already.
type fsm Group

// applied is the row that says how far the state is.
type applied struct{ index, term uint64 }

func appliedKey() []byte { return []byte{0} }

func (a applied) encode() []byte {
	return binary.AppendUvarint(binary.AppendUvarint([]byte{0}, a.index), a.term)
}

func readApplied(v View) (a applied, err error) {
	row, ok, err := v.Get(appliedKey())
	if err != nil || !ok {
		return a, err
	}
	if len(row) < 3 || row[0] != 0 {
		return a, fmt.Errorf("applied index of group %d is malformed", v.group)
	}
	index, n := binary.Uvarint(row[1:])
	term, m := binary.Uvarint(row[1+max(n, 0):])
	if n <= 0 || m <= 0 {
		return a, fmt.Errorf("applied index of group %d is malformed", v.group)
	}
	return applied{index, term}, nil
}

// Apply is for raft's interface only: it calls ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies the commands among logs that are new to the state.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	if f.broken != nil {
		return fill(answers, f.broken)
	}
	entries := make([]Entry, 0, len(logs))
	places := make([]int, 0, len(logs))
	done := f.applied.Load()
	for i, l := range logs {
		if l.Type == raft.LogCommand && (l.Index > done || f.node.faults.noIndexCheck) {
			entries, places = append(entries, Entry{l.Index, l.Term, l.Data}), append(places, i)
		}
	}
	if len(entries) == 0 {
		return answers
	}
	results, err := f.apply(entries)
	if err != nil {
		f.broken = err
		f.node.opt.Fatal(err)
		return fill(answers, err)
	}
	for i, place := range places {
		answers[place] = results[i]
	}
	return answers
}

func fill(answers []any, err error) []any {
	for i := range answers {
		answers[i] = err
	}
	return answers
}

func (f *fsm) apply(entries []Entry) ([]any, error) {
	b := newBatch(f.node.state, f.id)
	defer b.b.Close()
	results, err := f.machine.Apply(b, entries)
	if err != nil {
		return nil, err
	}
	last := entries[len(entries)-1]
	if err := b.Set(appliedKey(), applied{last.Index, last.Term}.encode()); err != nil {
		return nil, err
	}
	if err := b.b.Commit(pebble.NoSync); err != nil {
		return nil, fmt.Errorf("write state of group %d: %w", f.id, err)
	}
	f.applied.Store(last.Index)
	f.machine.Applied(entries, results)
	return results, nil
}

// Snapshot takes a handle: that the state is on disk up to here is Persist's
// work, and the data itself stays where it is.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return &localSnapshot{f.node, f.applied.Load()}, nil
}

// Restore takes over the snapshot that was received; raft opened it, but its
// parts are files already.
func (f *fsm) Restore(rc io.ReadCloser) error {
	defer rc.Close()
	if err := f.snapshots.install(); err != nil {
		return err
	}
	return (*Group)(f).reload()
}

type localSnapshot struct {
	node    *Node
	applied uint64
}

// Persist returns when the state that the snapshot stands for is on disk:
// only then may the log be cut.
func (s *localSnapshot) Persist(to raft.SnapshotSink) error {
	if !s.node.faults.noFlush {
		if err := s.node.flusher.flush(); err != nil {
			return err
		}
	}
	to.(*sink).meta.Applied = s.applied
	return to.Close()
}

func (*localSnapshot) Release() {}
