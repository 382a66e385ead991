package api

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/access"
	"github.com/omnisales/edgerelay/relay/catalogue"
	"github.com/omnisales/edgerelay/sdk/webhook"
)

func (r *request) find() (*relay.Webhook, error) {
	h := r.opt.Registry.Find(r.store, r.id)
	if h == nil {
		return nil, relay.NotFound("no such webhook: GET /api/webhooks lists yours")
	}
	return h, nil
}

func (r *request) listWebhooks() error {
	limit, cursor, err := r.page()
	if err != nil {
		return err
	}
	before := uint32(0)
	if len(cursor) > 0 {
		before = uint32(min(cursor[0], 1<<32-1))
	}
	hooks := r.opt.Registry.List(r.store, before, limit+1)
	next := ""
	if len(hooks) > limit {
		hooks = hooks[:limit]
		next = formatCursor([]uint64{uint64(hooks[limit-1].Ordinal)})
	}
	shapes := make([]*webhookShape, len(hooks))
	for i, h := range hooks {
		if shapes[i], err = r.shape(h); err != nil {
			return err
		}
	}
	r.list(shapes, next)
	return nil
}

func (r *request) getWebhook() error {
	h, err := r.find()
	if err != nil {
		return err
	}
	s, err := r.shape(h)
	if err != nil {
		return err
	}
	r.succeed(200, s)
	return nil
}

func (r *request) createWebhook() error {
	body, _, err := r.body("application/json")
	if err != nil {
		return err
	}
	id, err := r.newUUID()
	if err != nil {
		return err
	}
	now := r.opt.Now().Unix()
	h := &relay.Webhook{Store: r.store, ID: id, Active: true, Signing: []string{"v1"}, TimeoutSeconds: relay.DefaultTimeoutSeconds, MaxRetries: relay.DefaultMaxRetries,
		Retry: relay.DefaultRetry, MaxInFlight: relay.DefaultMaxInFlight, CreatedAt: now, UpdatedAt: now}
	in := input{request: r, h: h, create: true}
	if err := in.read(body); err != nil {
		return err
	}
	secret := in.secret
	if secret == nil {
		if secret, err = webhook.NewSecret(r.opt.Random); err != nil {
			return err
		}
	}
	if h.Secret, err = r.seal(h, "secret", []byte(secret.Reveal())); err != nil {
		return err
	}
	stored, err := r.opt.Meta.PutWebhook(context.Background(), h)
	if err != nil {
		return err
	}
	s, err := r.shape(stored)
	if err != nil {
		return err
	}
	s.Secret = secret.Reveal()
	r.succeed(201, s, in.warnings...)
	return nil
}

func (r *request) seal(h *relay.Webhook, field string, plain []byte) (relay.Sealed, error) {
	return r.opt.Keyring.Seal(r.opt.Random, plain, access.AAD(h.Store, h.ID, field))
}

func (r *request) open(h *relay.Webhook, field string, s relay.Sealed) ([]byte, error) {
	return r.opt.Keyring.Open(s, access.AAD(h.Store, h.ID, field))
}

// change applies a change to the webhook as it stands, again if another node
// was faster.
func (r *request) change(apply func(h *relay.Webhook) error) (*relay.Webhook, error) {
	h, err := r.find()
	if err != nil {
		return nil, err
	}
	turn := &r.changing[h.Ordinal%uint32(len(r.changing))]
	turn.Lock()
	defer turn.Unlock()
	for try := 0; ; try++ {
		h, err := r.find()
		if err != nil {
			return nil, err
		}
		changed := *h
		if err := apply(&changed); err != nil {
			return nil, err
		}
		changed.UpdatedAt = r.opt.Now().Unix()
		stored, err := r.opt.Meta.PutWebhook(context.Background(), &changed)
		if e, ok := relay.AsError(err); ok && e.Code == relay.CodeConflict && try < 10 {
			continue
		}
		return stored, err
	}
}

func (r *request) changeWebhook() error {
	body, _, err := r.body("application/json")
	if err != nil {
		return err
	}
	var warnings []relay.Warning
	h, err := r.change(func(h *relay.Webhook) error {
		in := input{request: r, h: h}
		err := in.read(body)
		warnings = in.warnings
		return err
	})
	if err != nil {
		return err
	}
	s, err := r.shape(h)
	if err != nil {
		return err
	}
	r.succeed(200, s, warnings...)
	return nil
}

func (r *request) deleteWebhook() error {
	h, err := r.find()
	if err != nil {
		return err
	}
	if err := r.opt.Meta.DeleteWebhook(context.Background(), r.store, h.ID); err != nil {
		return err
	}
	r.succeed(200, map[string]string{"id": h.ID})
	return nil
}

// rotation is the body of secret/rotate.
type rotation struct {
	grace  int64
	finish bool
}

func (r *request) readRotation() (c rotation, err error) {
	c.grace = 86_400
	if len(r.PostBody()) == 0 {
		return c, nil
	}
	body, _, err := r.body("application/json")
	if err != nil {
		return c, err
	}
	given := false
	err = fields(body, func(key string, raw []byte) error {
		switch key {
		case "grace_seconds":
			given = true
			return readInt(raw, key, &c.grace, 0, 30*86_400)
		case "finish":
			return readBool(raw, key, &c.finish)
		}
		return unknownField(key)
	})
	if err == nil && given && c.finish {
		err = relay.Invalid("finish", "and grace_seconds exclude each other: send one")
	}
	return c, err
}

func (r *request) rotate() error {
	c, err := r.readRotation()
	if err != nil {
		return err
	}
	now := r.opt.Now().Unix()
	var fresh *webhook.Secret
	if !c.finish {
		if fresh, err = webhook.NewSecret(r.opt.Random); err != nil {
			return err
		}
	}
	h, err := r.change(func(h *relay.Webhook) error {
		if c.finish {
			if h.NextSecret == nil {
				return relay.Invalid("finish", "no rotation is under way")
			}
			finishRotation(h, h.GraceEnds)
			return nil
		}
		finishRotation(h, now)
		sealed, err := r.seal(h, "secret", []byte(fresh.Reveal()))
		if err != nil {
			return err
		}
		h.NextSecret, h.GraceEnds = &sealed, now+c.grace
		finishRotation(h, now)
		return nil
	})
	if err != nil {
		return err
	}
	s, err := r.shape(h)
	if err != nil {
		return err
	}
	secret, err := r.newest(h)
	if err != nil {
		return err
	}
	s.Secret = secret
	r.succeed(200, s)
	return nil
}

// finishRotation makes the next secret the secret once the grace is over.
func finishRotation(h *relay.Webhook, now int64) {
	if h.NextSecret != nil && now >= h.GraceEnds {
		h.Secret, h.NextSecret, h.GraceEnds = *h.NextSecret, nil, 0
	}
}

func (r *request) newest(h *relay.Webhook) (string, error) {
	sealed := h.Secret
	if h.NextSecret != nil {
		sealed = *h.NextSecret
	}
	plain, err := r.open(h, "secret", sealed)
	return string(plain), err
}

func (r *request) test() error {
	h, err := r.find()
	if err != nil {
		return err
	}
	event := ""
	if len(r.PostBody()) > 0 {
		body, _, err := r.body("application/json")
		if err != nil {
			return err
		}
		if err := fields(body, func(key string, raw []byte) error {
			if key != "event" {
				return unknownField(key)
			}
			return readString(raw, key, &event, 128)
		}); err != nil {
			return err
		}
	}
	t, err := sampleFor(h, event)
	if err != nil {
		return err
	}
	var random [16]byte
	if _, err := io.ReadFull(r.opt.Random, random[:]); err != nil {
		return err
	}
	a, evidence, err := r.opt.Tester.Test(context.Background(), h, t.Name, "evt_test_"+hex.EncodeToString(random[:]), t.Sample)
	if err != nil {
		return err
	}
	r.succeed(200, r.attemptShape(h, a, evidence, nil))
	return nil
}

// sampleFor is the type named, or the first subscribed one that has a sample.
func sampleFor(h *relay.Webhook, event string) (catalogue.Type, error) {
	if event != "" {
		if t, ok := catalogue.Lookup(event); ok {
			return t, nil
		}
		return catalogue.Type{}, relay.Invalid("event", "the type is unknown: GET /api/event-types lists those that are")
	}
	for _, pattern := range h.Events {
		for _, t := range catalogue.All() {
			if matches(pattern, t.Name) {
				return t, nil
			}
		}
	}
	return catalogue.Type{}, relay.Invalid("event", "no subscribed type has a sample: name one")
}

func (r *request) newUUID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(r.opt.Random, b[:]); err != nil {
		return "", fmt.Errorf("read randomness: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}
