package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/omnisales/edgerelay/sdk/webhook"
)

// demoReceiver is what an integrator writes: it verifies, then answers. The
// path says which webhook a request is for.
type demoReceiver struct {
	url    string
	server *http.Server
	hits   chan hit
	done   chan struct{}

	mu      sync.Mutex
	hooks   map[string]*hook
	secrets map[string]*webhook.Secret
	mended  map[string]bool
	last    map[string]time.Time // by delivery
	first   time.Time
}

// hit is one request, as the receiver saw it.
type hit struct {
	hook, event string
	attempt     int
	status      int
	at          time.Duration // since the first
	gap         time.Duration // since the delivery's attempt before
	fault       error
}

func (h hit) String() string {
	signed := "signatures ok"
	if h.fault != nil {
		signed = h.fault.Error()
	}
	after := ""
	if h.gap > 0 {
		after = fmt.Sprintf(", %.3f s after the one before", h.gap.Seconds())
	}
	return fmt.Sprintf("%+7.3f s  %-8s %-22s %s  attempt %d → %d%s", h.at.Seconds(), h.hook, h.event, signed, h.attempt, h.status, after)
}

func startDemoReceiver(hooks []*hook) (*demoReceiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &demoReceiver{
		url: "http://" + l.Addr().String(), hits: make(chan hit, 64), done: make(chan struct{}),
		hooks: map[string]*hook{}, secrets: map[string]*webhook.Secret{}, mended: map[string]bool{}, last: map[string]time.Time{},
	}
	for _, h := range hooks {
		r.hooks[h.name] = h
	}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(r.done)
		_ = r.server.Serve(l) // ends with close
	}()
	return r, nil
}

func (r *demoReceiver) close() {
	_ = r.server.Close()
	<-r.done
}

func (r *demoReceiver) trust(name, secret string) error {
	s, err := webhook.ParseSecret(secret)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets[name] = s
	return nil
}

func (r *demoReceiver) mend(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mended[name] = true
}

// ServeHTTP verifies and answers as the webhook's script says.
func (r *demoReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender is gone
	}
	h := r.take(req, body)
	w.WriteHeader(h.status)
	select {
	case r.hits <- h:
	default: // nobody looks any more
	}
}

func (r *demoReceiver) take(req *http.Request, body []byte) hit {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.first.IsZero() {
		r.first = now
	}
	h := hit{hook: strings.Trim(req.URL.Path, "/"), event: req.Header.Get("X-Webhook-Event"), at: now.Sub(r.first)}
	script := r.hooks[h.hook]
	if script == nil {
		h.status, h.fault = http.StatusNotFound, errors.New("unknown path")
		return h
	}
	h.attempt, _ = strconv.Atoi(req.Header.Get("X-Webhook-Attempt"))
	delivery := req.Header.Get("X-Webhook-Delivery")
	if before, ok := r.last[delivery]; ok && h.attempt > 1 {
		h.gap = now.Sub(before)
	}
	r.last[delivery] = now
	if h.fault = verifyBoth(r.secrets[h.hook], req.Header, body); h.fault != nil {
		h.status = http.StatusUnauthorized
		return h
	}
	h.status = script.answers(h.attempt)
	if r.mended[h.hook] {
		h.status = http.StatusOK
	}
	return h
}

// verifyBoth checks each scheme by itself: a Verifier is content with one.
func verifyBoth(secret *webhook.Secret, h http.Header, body []byte) error {
	v := webhook.Verifier{Secrets: []*webhook.Secret{secret}}
	if err := v.Verify(h, body); err != nil {
		return fmt.Errorf("webhook-signature: %w", err)
	}
	guide := h.Clone()
	guide.Del("webhook-signature")
	if err := v.Verify(guide, body); err != nil {
		return fmt.Errorf("X-Webhook-Signature: %w", err)
	}
	return nil
}

func (r *demoReceiver) next(ctx context.Context) (hit, error) {
	select {
	case h := <-r.hits:
		return h, nil
	case <-ctx.Done():
		return hit{}, ctx.Err()
	}
}

// narrate prints what arrives until ctx ends or the node does.
func (r *demoReceiver) narrate(ctx context.Context, node *child) {
	for {
		select {
		case h := <-r.hits:
			fmt.Println("  " + h.String())
		case <-ctx.Done():
			return
		case <-node.done:
			return
		}
	}
}
