package state

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/omnisales/edgerelay/relay"
)

// Meta applies the meta group's entries: the webhooks of every store. It is
// small and slow, so its commands and rows are JSON inside the envelope.
type Meta struct{}

// PutWebhook creates a webhook (Ordinal and Version 0) or replaces the one
// whose Version it still is.
type PutWebhook struct {
	Stamp   int64          `json:"stamp"`
	Webhook *relay.Webhook `json:"webhook"`
}

// DeleteWebhook deletes a webhook of a store by its id.
type DeleteWebhook struct {
	Stamp int64  `json:"stamp"`
	Store uint32 `json:"store"`
	ID    string `json:"id"`
}

// MetaResult is what an entry did: the webhook as it now is, or the one that
// was deleted; or why nothing was done.
type MetaResult struct {
	Webhook *relay.Webhook
	Deleted bool
	Err     *relay.Error
}

// Encode writes the command.
func (c *PutWebhook) Encode() ([]byte, error) { return encodeJSON(kindPutWebhook, c) }

// Encode writes the command.
func (c *DeleteWebhook) Encode() ([]byte, error) { return encodeJSON(kindDeleteWebhook, c) }

func encodeJSON(kind byte, c any) ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	return append(envelope(kind, len(b)), b...), nil
}

// Apply applies one entry; index becomes the version of what it changes.
func (Meta) Apply(w Writer, index uint64, data []byte) (*MetaResult, error) {
	kind, body, err := openEnvelope(data)
	if err != nil {
		return nil, err
	}
	switch kind {
	case kindPutWebhook:
		var c PutWebhook
		if err := json.Unmarshal(body, &c); err != nil || c.Webhook == nil {
			return nil, fmt.Errorf("decode put webhook: %w", firstError(err, errCorrupt))
		}
		return putWebhook(w, index, c.Webhook)
	case kindDeleteWebhook:
		var c DeleteWebhook
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, fmt.Errorf("decode delete webhook: %w", err)
		}
		return deleteWebhook(w, &c)
	}
	return nil, fmt.Errorf("meta command kind %d is unknown to this program: upgrade it", kind)
}

func keyWebhook(store, ordinal uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{tableWebhook}, store)
	return binary.BigEndian.AppendUint32(b, ordinal)
}

func keyUUID(store uint32, id string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{tableUUID}, store), id...)
}

func keyDropped(ordinal uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableDropped}, ordinal)
}

func putWebhook(w Writer, index uint64, h *relay.Webhook) (*MetaResult, error) {
	stored, err := FindWebhook(w, h.Store, h.ID)
	if err != nil {
		return nil, err
	}
	switch {
	case h.Ordinal == 0 && stored == nil:
		if h.Ordinal, err = nextOrdinal(w); err != nil {
			return nil, err
		}
		h.Revision = 1
		if err := w.Set(keyUUID(h.Store, h.ID), binary.BigEndian.AppendUint32(nil, h.Ordinal)); err != nil {
			return nil, err
		}
	case stored == nil:
		return &MetaResult{Err: relay.NotFound("no such webhook: it was deleted")}, nil
	case stored.Version != h.Version:
		return &MetaResult{Err: &relay.Error{Code: relay.CodeConflict, Message: "the webhook was changed at the same time: read it and try again"}}, nil
	}
	h.Version = index
	v, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode webhook: %w", err)
	}
	return &MetaResult{Webhook: h}, w.Set(keyWebhook(h.Store, h.Ordinal), append([]byte{0}, v...))
}

// nextOrdinal counts up in the meta row: ordinals are never reused.
func nextOrdinal(w Writer) (uint32, error) {
	v, ok, err := w.Get([]byte{tableMeta})
	if err != nil {
		return 0, err
	}
	last := uint32(0)
	if ok {
		if len(v) != 5 {
			return 0, errCorrupt
		}
		last = be32(v[1:])
	}
	return last + 1, w.Set([]byte{tableMeta}, binary.BigEndian.AppendUint32([]byte{0}, last+1))
}

func deleteWebhook(w Writer, c *DeleteWebhook) (*MetaResult, error) {
	stored, err := FindWebhook(w, c.Store, c.ID)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return &MetaResult{Err: relay.NotFound("no such webhook")}, nil
	}
	err = firstError(w.Delete(keyWebhook(c.Store, stored.Ordinal)), w.Delete(keyUUID(c.Store, c.ID)),
		w.Set(keyDropped(stored.Ordinal), putString(binary.AppendVarint([]byte{0}, c.Stamp), stored.ID)))
	return &MetaResult{Webhook: stored, Deleted: true}, err
}

// FindWebhook reads a store's webhook by its id; nil where there is none.
func FindWebhook(r Reader, store uint32, id string) (*relay.Webhook, error) {
	v, ok, err := r.Get(keyUUID(store, id))
	if err != nil || !ok || len(v) != 4 {
		return nil, err
	}
	row, ok, err := r.Get(keyWebhook(store, be32(v)))
	if err != nil || !ok {
		return nil, err
	}
	return decodeWebhook(row)
}

func decodeWebhook(v []byte) (*relay.Webhook, error) {
	if len(v) == 0 || v[0] != 0 {
		return nil, errCorrupt
	}
	h := &relay.Webhook{}
	if err := json.Unmarshal(v[1:], h); err != nil {
		return nil, fmt.Errorf("decode webhook: %w", err)
	}
	return h, nil
}

// Webhooks calls fn for every webhook of every store.
func Webhooks(r Reader, fn func(*relay.Webhook)) error {
	var fault error
	err := r.Scan([]byte{tableWebhook}, []byte{tableWebhook + 1}, false, func(_, v []byte) bool {
		h, err := decodeWebhook(v)
		if fault = err; err == nil {
			fn(h)
		}
		return err == nil
	})
	return firstError(err, fault)
}

// DroppedWebhooks lists the webhooks deleted before (unix ms).
func DroppedWebhooks(r Reader, before int64) (ordinals []uint32, err error) {
	var fault error
	err = r.Scan([]byte{tableDropped}, []byte{tableDropped + 1}, false, func(k, v []byte) bool {
		d := decoder{b: v}
		d.version()
		at := d.sint()
		d.string()
		if fault = d.end(); at < before {
			ordinals = append(ordinals, be32(k[1:]))
		}
		return fault == nil
	})
	return ordinals, firstError(err, fault)
}

// DroppedWebhook is the id that a deleted webhook had; "" where there was none.
func DroppedWebhook(r Reader, ordinal uint32) (id string, err error) {
	v, ok, err := r.Get(keyDropped(ordinal))
	if err != nil || !ok {
		return "", err
	}
	d := decoder{b: v}
	d.version()
	d.sint()
	id = d.string()
	return id, d.end()
}
