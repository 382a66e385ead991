package replica

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

// metaGroup applies the meta group's entries and shows them to the registry.
type metaGroup struct {
	group    *cluster.Group
	registry Registry
	led      atomic.Bool
	caughtUp chan struct{} // closed when all that was committed before the start is applied
	machine  state.Meta
	// applying is held from Apply to the end of Applied, and while the
	// registry is filled: it never sees a change twice or not at all.
	applying sync.Mutex
}

func openMeta(node *cluster.Node, registry Registry) (*metaGroup, error) {
	m := &metaGroup{registry: registry, caughtUp: make(chan struct{})}
	m.applying.Lock()
	defer m.applying.Unlock()
	group, err := node.StartGroup(metaGroupID, (*metaMachine)(m))
	if err != nil {
		return nil, fmt.Errorf("start meta group: %w", err)
	}
	m.group = group
	if err := m.fill(); err != nil {
		return nil, err
	}
	caughtUp := sync.OnceFunc(func() { close(m.caughtUp) })
	group.Watch(func(l cluster.Leadership) {
		m.led.Store(l.Leader)
		if l.Leader {
			caughtUp()
		}
	})
	return m, nil
}

func (m *metaGroup) fill() error {
	var all []*relay.Webhook
	if err := state.Webhooks(m.group.View(), func(h *relay.Webhook) { all = append(all, h) }); err != nil {
		return fmt.Errorf("read webhooks: %w", err)
	}
	m.registry.Reset(all)
	return nil
}

func (m *metaGroup) propose(ctx context.Context, data []byte) (*relay.Webhook, error) {
	result, err := wait(ctx, m.group.Propose(data))
	if err != nil {
		return nil, err
	}
	r := result.(*state.MetaResult)
	if r.Err != nil {
		return nil, r.Err
	}
	return r.Webhook, nil
}

// metaMachine is metaGroup as the cluster sees it.
type metaMachine metaGroup

func (m *metaMachine) Apply(b *cluster.Batch, entries []cluster.Entry) ([]any, error) {
	m.applying.Lock()
	results := make([]any, len(entries))
	for i, e := range entries {
		r, err := m.machine.Apply(b, e.Index, e.Data)
		if err != nil {
			m.applying.Unlock()
			return nil, fmt.Errorf("apply meta entry %d: %w", e.Index, err)
		}
		results[i] = r
	}
	return results, nil
}

func (m *metaMachine) Applied(_ []cluster.Entry, results []any) {
	defer m.applying.Unlock()
	for _, result := range results {
		switch r := result.(*state.MetaResult); {
		case r.Err != nil:
		case r.Deleted:
			m.registry.Delete(r.Webhook.Ordinal)
		default:
			m.registry.Put(r.Webhook)
		}
	}
}

// Restored refills the registry from the state that replaced the old one.
func (m *metaMachine) Restored() error {
	m.applying.Lock()
	defer m.applying.Unlock()
	return (*metaGroup)(m).fill()
}
