package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// identity says which store this is. Raft's server id carries it: a store
// that was wiped comes back as another server and never votes as the old one.
type identity struct {
	store  string // 32 hex, random
	server string // raft's ServerID: node id / first 8 hex of the store
}

type identityRow struct {
	Store  string `json:"store"`
	Server string `json:"server"`
}

// identify reads the identity, or makes it in a new directory. The state's is
// written first: a log whose state is missing is then never a fresh start but
// a loss, and told as such.
func identify(log, state *pebble.DB, nodeID string) (identity, error) {
	inLog, okLog, err := readIdentity(log)
	if err != nil {
		return identity{}, err
	}
	inState, okState, err := readIdentity(state)
	if err != nil {
		return identity{}, err
	}
	switch {
	case okLog && okState && inLog.Store == inState.Store:
		return identity{inLog.Store, inLog.Server}, nil
	case okLog && okState:
		return identity{}, errors.New("log and state are of different stores: restore both from the same backup")
	case okLog:
		return identity{}, errors.New("the state is missing but its log is there: restore both from the same backup, or remove both to start anew")
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return identity{}, err
	}
	made := identityRow{Store: hex.EncodeToString(id[:]), Server: nodeID + "/" + hex.EncodeToString(id[:4])}
	row, err := json.Marshal(made)
	if err != nil {
		return identity{}, err
	}
	key := nodeKey('u')
	if err := errors.Join(state.Set(key, row, pebble.NoSync), state.Flush()); err != nil {
		return identity{}, fmt.Errorf("write identity: %w", err)
	}
	if err := log.Set(key, row, pebble.Sync); err != nil {
		return identity{}, fmt.Errorf("write identity: %w", err)
	}
	return identity{made.Store, made.Server}, nil
}

func readIdentity(db *pebble.DB) (row identityRow, ok bool, err error) {
	v, ok, err := get(db, nodeKey('u'))
	if err != nil || !ok {
		return row, false, err
	}
	if err := json.Unmarshal(v, &row); err != nil {
		return row, false, fmt.Errorf("read identity: %w", err)
	}
	return row, true, nil
}
