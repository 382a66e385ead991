package registry

import (
	"fmt"
	"slices"
	"testing"

	"github.com/omnisales/edgerelay/relay"
)

func hook(ordinal, store uint32, events ...string) *relay.Webhook {
	return &relay.Webhook{Ordinal: ordinal, Store: store, ID: fmt.Sprintf("id-%d", ordinal), Revision: 7, Events: events, Active: true}
}

func resolve(r *Registry, store uint32, event string, channels ...string) []uint32 {
	var out []uint32
	for _, t := range r.Resolve(nil, store, event, channels) {
		out = append(out, t.Webhook)
	}
	return out
}

func TestResolve(t *testing.T) {
	r := New()
	inactive, disabled, paused, channelled := hook(6, 1, "*"), hook(7, 1, "*"), hook(8, 1, "order.created"), hook(9, 1, "*")
	inactive.Active, disabled.DisabledReason, paused.Paused, channelled.Channels = false, "gone", true, []string{"eu", "us"}
	r.Reset([]*relay.Webhook{hook(1, 1, "order.created"), hook(2, 1, "order.*"), hook(3, 1, "*", "order.*", "order.created"), hook(4, 2, "*"), hook(5, 1, "payment.*"), inactive, disabled, paused, channelled})
	for _, c := range []struct {
		store    uint32
		event    string
		channels []string
		want     []uint32
	}{
		{1, "order.created", nil, []uint32{1, 2, 3, 8}},
		{1, "order.created", []string{"us"}, []uint32{1, 2, 3, 8, 9}},
		{1, "order.created", []string{"asia"}, []uint32{1, 2, 3, 8}},
		{1, "order.item.added", nil, []uint32{2, 3}},
		{1, "order", nil, []uint32{3}},
		{1, "orders.created", nil, []uint32{3}},
		{1, "webhook.failing", []string{"us"}, nil},
		{2, "order.created", nil, []uint32{4}},
		{3, "order.created", nil, nil},
	} {
		if got := resolve(r, c.store, c.event, c.channels...); !slices.Equal(got, c.want) {
			t.Errorf("store %d, %s, %v: %v, want %v", c.store, c.event, c.channels, got, c.want)
		}
	}
}

func TestChangesAreSeen(t *testing.T) {
	r := New()
	var told []uint32
	stop := r.Watch(func(o uint32) { told = append(told, o) })
	r.Put(hook(1, 1, "a.b"))
	r.Put(hook(2, 1, "*"))
	changed := hook(1, 1, "c.d")
	r.Put(changed)
	if got := resolve(r, 1, "a.b"); !slices.Equal(got, []uint32{2}) {
		t.Errorf("the old pattern still matches: %v", got)
	}
	if r.Find(1, "id-1") != changed || r.Find(2, "id-1") != nil || r.Find(1, "id-9") != nil {
		t.Error("find")
	}
	r.Delete(2)
	stop()
	r.Delete(1)
	if !slices.Equal(told, []uint32{1, 2, 1, 2}) || len(resolve(r, 1, "c.d")) != 0 || r.Webhook(1) != nil {
		t.Errorf("told %v", told)
	}
}

func TestListPages(t *testing.T) {
	r := New()
	for i := uint32(1); i <= 7; i++ {
		r.Put(hook(i, 1, "*"))
	}
	var got []uint32
	for before := uint32(0); ; {
		page := r.List(1, before, 3)
		if len(page) == 0 {
			break
		}
		for _, h := range page {
			got = append(got, h.Ordinal)
		}
		before = page[len(page)-1].Ordinal
	}
	if !slices.Equal(got, []uint32{7, 6, 5, 4, 3, 2, 1}) {
		t.Errorf("got %v", got)
	}
}

// The cost does not grow with webhooks that do not match.
func BenchmarkResolve(b *testing.B) {
	for _, n := range []uint32{100, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := New()
			var all []*relay.Webhook
			for i := uint32(1); i <= n; i++ {
				h := hook(i, 1, fmt.Sprintf("type%d.created", i))
				if i%(n/10) == 0 {
					h.Events = []string{"order.*"}
				}
				all = append(all, h)
			}
			r.Reset(all)
			dst := make([]relay.Target, 0, 16)
			b.ReportAllocs()
			for b.Loop() {
				if dst = r.Resolve(dst[:0], 1, "order.created", nil); len(dst) != 10 {
					b.Fatal(len(dst))
				}
			}
		})
	}
}
