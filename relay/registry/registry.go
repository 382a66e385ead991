// Package registry holds the webhooks of every store in memory, as the meta
// group has them, and finds those that an event goes to: by an index of
// patterns, so that the cost grows with what matches, not with what exists.
//
// Readers do not block each other; a change blocks them shortly. It owns no
// goroutine.
package registry

import (
	"slices"
	"strings"
	"sync"

	"github.com/omnisales/edgerelay/relay"
)

// Registry is safe for concurrent use. The webhooks in it are immutable.
type Registry struct {
	mu       sync.RWMutex
	all      map[uint32]*relay.Webhook
	stores   map[uint32]*store
	watchers map[int]func(uint32)
	nextID   int
}

// store is one store's share.
type store struct {
	byID     map[string]uint32
	ordinals []uint32 // ascending
	// patterns is from an exact type, "order.*" or "*" to the webhooks that
	// have it and match, ascending.
	patterns map[string][]uint32
}

// New makes an empty registry.
func New() *Registry {
	return &Registry{all: map[uint32]*relay.Webhook{}, stores: map[uint32]*store{}, watchers: map[int]func(uint32){}}
}

// Put adds a webhook or replaces the one with its ordinal.
func (r *Registry) Put(h *relay.Webhook) {
	r.mu.Lock()
	r.remove(h.Ordinal)
	r.add(h)
	r.mu.Unlock()
	r.tell(h.Ordinal)
}

// Delete removes a webhook.
func (r *Registry) Delete(ordinal uint32) {
	r.mu.Lock()
	r.remove(ordinal)
	r.mu.Unlock()
	r.tell(ordinal)
}

// Reset replaces everything.
func (r *Registry) Reset(all []*relay.Webhook) {
	r.mu.Lock()
	r.all, r.stores = make(map[uint32]*relay.Webhook, len(all)), map[uint32]*store{}
	for _, h := range all {
		r.add(h)
	}
	r.mu.Unlock()
	r.tell(0)
}

func (r *Registry) add(h *relay.Webhook) {
	r.all[h.Ordinal] = h
	s := r.stores[h.Store]
	if s == nil {
		s = &store{byID: map[string]uint32{}, patterns: map[string][]uint32{}}
		r.stores[h.Store] = s
	}
	s.byID[h.ID] = h.Ordinal
	s.ordinals = insert(s.ordinals, h.Ordinal)
	if h.Matches() {
		for _, p := range h.Events {
			s.patterns[p] = insert(s.patterns[p], h.Ordinal)
		}
	}
}

func (r *Registry) remove(ordinal uint32) {
	h := r.all[ordinal]
	if h == nil {
		return
	}
	delete(r.all, ordinal)
	s := r.stores[h.Store]
	delete(s.byID, h.ID)
	s.ordinals = drop(s.ordinals, ordinal)
	for _, p := range h.Events {
		if left := drop(s.patterns[p], ordinal); len(left) > 0 {
			s.patterns[p] = left
		} else {
			delete(s.patterns, p)
		}
	}
}

func insert(list []uint32, v uint32) []uint32 {
	at, found := slices.BinarySearch(list, v)
	if found {
		return list
	}
	return slices.Insert(list, at, v)
}

func drop(list []uint32, v uint32) []uint32 {
	if at, found := slices.BinarySearch(list, v); found {
		return slices.Delete(list, at, at+1)
	}
	return list
}

// Watch calls fn after each change, with the webhook's ordinal, or 0 where
// everything changed. fn must be short; it may read the registry.
func (r *Registry) Watch(fn func(ordinal uint32)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.nextID
	r.nextID++
	r.watchers[id] = fn
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, id)
	}
}

func (r *Registry) tell(ordinal uint32) {
	r.mu.RLock()
	fns := make([]func(uint32), 0, len(r.watchers))
	for _, fn := range r.watchers {
		fns = append(fns, fn)
	}
	r.mu.RUnlock()
	for _, fn := range fns {
		fn(ordinal)
	}
}

// Webhook finds a webhook by its ordinal; nil where there is none.
func (r *Registry) Webhook(ordinal uint32) *relay.Webhook {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.all[ordinal]
}

// Find finds a store's webhook by its id; nil where there is none.
func (r *Registry) Find(storeOrdinal uint32, id string) *relay.Webhook {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := r.stores[storeOrdinal]
	if s == nil {
		return nil
	}
	return r.all[s.byID[id]]
}

// List returns at most limit of a store's webhooks, newest first, with
// ordinals below before (0: from the newest).
func (r *Registry) List(storeOrdinal, before uint32, limit int) []*relay.Webhook {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := r.stores[storeOrdinal]
	if s == nil {
		return nil
	}
	end := len(s.ordinals)
	if before > 0 {
		end, _ = slices.BinarySearch(s.ordinals, before)
	}
	page := s.ordinals[max(0, end-limit):end]
	out := make([]*relay.Webhook, 0, len(page))
	for _, ordinal := range slices.Backward(page) {
		out = append(out, r.all[ordinal])
	}
	return out
}

// Resolve appends the webhooks that an event goes to, ascending by ordinal,
// with their revisions.
func (r *Registry) Resolve(dst []relay.Target, storeOrdinal uint32, eventType string, channels []string) []relay.Target {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := r.stores[storeOrdinal]
	if s == nil {
		return dst
	}
	start := len(dst)
	lists := 0
	dst = r.match(dst, s.patterns[eventType], channels, &lists)
	var buf [160]byte
	for i := len(eventType) - 1; i > 0; i-- {
		if eventType[i] == '.' {
			prefix := append(append(buf[:0], eventType[:i]...), ".*"...)
			dst = r.match(dst, s.patterns[string(prefix)], channels, &lists)
		}
	}
	if !Reserved(eventType) {
		dst = r.match(dst, s.patterns["*"], channels, &lists)
	}
	if lists > 1 {
		found := dst[start:]
		slices.SortFunc(found, func(a, b relay.Target) int { return int(int64(a.Webhook) - int64(b.Webhook)) })
		dst = dst[:start+len(slices.Compact(found))]
	}
	return dst
}

func (r *Registry) match(dst []relay.Target, ordinals []uint32, channels []string, lists *int) []relay.Target {
	if len(ordinals) > 0 {
		*lists++
	}
	for _, ordinal := range ordinals {
		if h := r.all[ordinal]; share(h.Channels, channels) {
			dst = append(dst, relay.Target{Webhook: ordinal, Revision: h.Revision})
		}
	}
	return dst
}

// share says whether an event of these channels reaches a webhook of those: a
// webhook without channels gets everything.
func share(hook, event []string) bool {
	if len(hook) == 0 {
		return true
	}
	for _, c := range event {
		if slices.Contains(hook, c) {
			return true
		}
	}
	return false
}

// Reserved says whether a type is one of the gateway's own notices, which "*"
// leaves out and nobody may publish.
func Reserved(eventType string) bool {
	return strings.HasPrefix(eventType, "webhook.") || strings.HasPrefix(eventType, "delivery.")
}
