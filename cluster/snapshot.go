package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// snapshotStore is raft's SnapshotStore of a group. A local snapshot is a row
// that says how far the state on disk is: the data stays where it is. One
// that was received is a set of SSTs until install puts them in its place.
type snapshotStore struct {
	g *Group

	mu   sync.Mutex
	meta *snapshotMeta // the newest; nil: none
}

// snapshotMeta is the row under 'm', JSON behind a version byte.
type snapshotMeta struct {
	Index              uint64 `json:"index"`
	Term               uint64 `json:"term"`
	Configuration      []byte `json:"configuration"` // as raft encodes it
	ConfigurationIndex uint64 `json:"configuration_index"`
	// Applied is the last command in the state at Index: entries that are
	// none, such as a new leader's, move Index only.
	Applied uint64 `json:"applied"`
	// Parts are the SSTs of a received snapshot that is not installed yet.
	Parts []string `json:"parts,omitempty"`
}

func (m *snapshotMeta) id() string { return fmt.Sprintf("%d-%d", m.Term, m.Index) }

func openSnapshots(g *Group) (*snapshotStore, error) {
	s := &snapshotStore{g: g}
	v, ok, err := get(g.node.log, groupKey(g.id, 'm'))
	if err != nil {
		return nil, err
	}
	if ok {
		if len(v) == 0 || v[0] != 0 {
			return nil, fmt.Errorf("snapshot row has version %d, which is newer than this program: upgrade it", v[:min(1, len(v))])
		}
		s.meta = &snapshotMeta{}
		if err := json.Unmarshal(v[1:], s.meta); err != nil {
			return nil, fmt.Errorf("read snapshot row: %w", err)
		}
	}
	// A crash between receiving and installing ends here.
	if err := s.install(); err != nil {
		return nil, err
	}
	return s, s.sweep()
}

func (s *snapshotStore) index() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		return 0
	}
	return s.meta.Index
}

func (s *snapshotStore) applied() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		return 0
	}
	return s.meta.Applied
}

// put makes m the newest snapshot, synced.
func (s *snapshotStore) put(m *snapshotMeta) error {
	row, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := s.g.node.log.Set(groupKey(s.g.id, 'm'), append([]byte{0}, row...), pebble.Sync); err != nil {
		err = fmt.Errorf("write snapshot row: %w", err)
		s.g.node.opt.Fatal(err)
		return err
	}
	s.mu.Lock()
	s.meta = m
	s.mu.Unlock()
	return nil
}

// Create begins a snapshot: the group's own, or one that another node sends.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("snapshot version %d is unknown", version)
	}
	m := &snapshotMeta{Index: index, Term: term, Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: configurationIndex}
	return &sink{store: s, meta: m}, nil
}

// List returns the newest snapshot, the only one kept.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meta == nil {
		return nil, nil
	}
	return []*raft.SnapshotMeta{s.meta.raft()}, nil
}

func (m *snapshotMeta) raft() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{Version: 1, ID: m.id(), Index: m.Index, Term: m.Term, Configuration: raft.DecodeConfiguration(m.Configuration), ConfigurationIndex: m.ConfigurationIndex}
}

// Open gives the snapshot's data as a stream (stream.go). The state may be
// newer than the snapshot's index: the stream carries its own, and the
// receiver skips the entries that it holds already.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	m := s.meta
	s.mu.Unlock()
	if m == nil || m.id() != id {
		return nil, nil, fmt.Errorf("snapshot %s is gone: a newer one took its place", id)
	}
	if len(m.Parts) > 0 {
		return m.raft(), io.NopCloser(eof{}), nil // received: Restore installs its parts
	}
	r, size, err := sendSnapshot(s.g)
	if err != nil {
		return nil, nil, err
	}
	meta := m.raft()
	meta.Size = size
	return meta, r, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// sink takes a snapshot in. Of a local one nothing is written.
type sink struct {
	store    *snapshotStore
	meta     *snapshotMeta
	receiver *receiver
	closed   bool
}

// ID names the snapshot.
func (k *sink) ID() string { return k.meta.id() }

// Write takes a part of a stream that another node sends.
func (k *sink) Write(p []byte) (int, error) {
	if k.receiver == nil {
		k.receiver = newReceiver(k.store.g, k.meta)
	}
	return k.receiver.write(p)
}

// Close makes the snapshot the newest one; it is on disk when it returns.
func (k *sink) Close() error {
	if k.closed {
		return nil
	}
	k.closed = true
	if k.receiver != nil {
		if err := k.receiver.finish(); err != nil {
			return err
		}
	}
	return k.store.put(k.meta)
}

// Cancel drops what was taken in.
func (k *sink) Cancel() error {
	if k.closed {
		return nil
	}
	k.closed = true
	if k.receiver != nil {
		return k.receiver.drop()
	}
	return nil
}
