package deliver

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net/http"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/deliver/wire"
	"github.com/omnisales/edgerelay/relay/retry"
)

// attempt is a worker's memory for one request after the other.
type attempt struct {
	engine *Engine
	req    wire.Request
	resp   wire.Response
	jitter maphash.Hash
}

func newAttempt(e *Engine) *attempt { return &attempt{engine: e} }

// run attempts a delivery and reports what came of it.
func (a *attempt) run(j *job) {
	o := a.outcome(j)
	e := a.engine
	e.mu.Lock()
	waits := j.spilling
	if waits {
		j.final = o
	} else {
		o.Parked = j.parked
	}
	e.mu.Unlock()
	if !waits {
		j.lane.d.src.Settle(o)
	}
	e.done(j)
}

// outcome decides by the webhook as it stands now whether to make a request,
// and makes it.
func (a *attempt) outcome(j *job) *relay.Outcome {
	e := a.engine
	o := &relay.Outcome{Sequence: j.sequence, Webhook: j.lane.webhook, EventType: j.eventType, AcceptedAt: j.acceptedAt, Node: e.opt.NodeID}
	h := e.opt.Registry.Webhook(j.lane.webhook)
	switch {
	case h == nil && j.lane.d.src.Deleted(j.lane.webhook):
		o.State = relay.Cancelled
		return o
	case h == nil || h.Held():
		o.State = relay.Backlog
		return o
	}
	c := a.use(j.lane, h)
	if c == nil {
		o.Attempt, o.StartedAt, o.Error = j.attempts+1, e.opt.Now().UnixMilli(), "internal: the webhook's secrets cannot be opened with this node's key"
		a.decide(o, h, 0)
		return o
	}
	started := a.send(c, j, false, h.Timeout())
	a.record(o, j, started)
	a.decide(o, h, a.pause(o, j.lane))
	a.keepEvidence(o, j.lane)
	return o
}

// use gives the webhook made ready, anew where it has changed.
func (a *attempt) use(l *lane, h *relay.Webhook) *compiled {
	e := a.engine
	e.mu.Lock()
	c := l.compiled
	e.mu.Unlock()
	if c != nil && c.from == h {
		return c
	}
	c, err := e.compile(h)
	if err != nil {
		e.opt.Logger.Error("webhook cannot be used", "webhook", h.ID, "error", err)
		return nil
	}
	e.mu.Lock()
	l.compiled = c
	e.mu.Unlock()
	return c
}

// send makes the request; the answer or the error is in a.resp and a.fault.
func (a *attempt) send(c *compiled, j *job, test bool, timeout time.Duration) (s sent) {
	s.at = a.engine.opt.Now()
	a.req.Target, a.req.Body, a.req.Whitelist, a.req.Timeout = c.target, j.payload, c.whitelist, timeout
	a.req.Head = c.appendHead(a.req.Head[:0], j, test, s.at)
	s.fault = a.engine.opt.Client.Do(&a.req, &a.resp)
	s.took = a.engine.opt.Now().Sub(s.at)
	a.req.Body = nil
	return s
}

type sent struct {
	at    time.Time
	took  time.Duration
	fault *wire.Error
}

func (a *attempt) record(o *relay.Outcome, j *job, s sent) {
	o.Attempt, o.StartedAt, o.DurationUS = j.attempts+1, s.at.UnixMilli(), s.took.Microseconds()
	if s.fault != nil {
		o.Error = s.fault.Code + ": " + s.fault.Detail
		return
	}
	o.StatusCode, o.ResponseBytes = a.resp.Status, len(a.resp.Body)
	o.Error = statusError(o.StatusCode)
}

// statusError is "" for success.
func statusError(code int) string {
	switch {
	case code >= 200 && code < 300:
		return ""
	case code >= 300 && code < 400:
		return fmt.Sprintf("status_%d: redirects are not followed, set the webhook's url to where it should go", code)
	case code == http.StatusRequestEntityTooLarge:
		return "status_413: the receiver refuses a body of this size, raise its limit or lower --max-event-bytes"
	}
	return fmt.Sprintf("status_%d", code)
}

// pause reads what a receiver asks for: to wait, or to be left alone.
func (a *attempt) pause(o *relay.Outcome, l *lane) time.Duration {
	e := a.engine
	if o.StatusCode == http.StatusGone {
		e.opt.Disable(l.webhook, "the receiver answered 410 Gone")
	}
	if o.StatusCode != http.StatusTooManyRequests && o.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	wait, ok := retry.ParseRetryAfter(a.resp.RetryAfter, e.opt.Now())
	if !ok || wait == 0 {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if until := e.opt.Now().Add(wait); until.After(l.until) {
		l.until = until
		l.d.watch(l)
		l.d.wake()
	}
	return wait
}

// decide turns the attempt's end into the delivery's state.
func (a *attempt) decide(o *relay.Outcome, h *relay.Webhook, atLeast time.Duration) {
	e := a.engine
	e.stats.micros.Add(uint64(max(o.DurationUS, 0)))
	if o.Error == "" {
		o.State = relay.Succeeded
		e.stats.succeeded.Add(1)
		return
	}
	e.stats.failed.Add(1)
	if o.Attempt >= h.MaxRetries {
		o.State = relay.Dead
		e.stats.dead.Add(1)
		return
	}
	o.State = relay.Retrying
	e.stats.retried.Add(1)
	a.jitter.Reset()
	_, _ = a.jitter.WriteString(h.ID)
	maphash.WriteComparable(&a.jitter, o.Sequence<<8|uint64(o.Attempt))
	u := float64(a.jitter.Sum64()>>11) / (1 << 53)
	wait := max(retry.Delay(h.Retry, o.Attempt, u), atLeast)
	o.NextAt = e.opt.Now().Add(wait + time.Millisecond - 1).UnixMilli() // rounded up: never early
}

// keepEvidence keeps a failed attempt's in full, a successful one's within
// the webhook's budget.
func (a *attempt) keepEvidence(o *relay.Outcome, l *lane) {
	e := a.engine
	if o.State == relay.Succeeded {
		size := 96 + len(a.resp.Body)
		a.resp.VisitHeader(func(k, v []byte) { size += len(k) + len(v) + 6 })
		e.mu.Lock()
		kept := l.evidence.take(size, e.opt.EvidenceBytesPerSecond, e.opt.Now())
		e.mu.Unlock()
		if !kept {
			return
		}
	}
	o.Evidence = encodeEvidence(a.evidence())
}

func (a *attempt) evidence() *relay.Evidence {
	r := &a.resp
	v := &relay.Evidence{Remote: r.Remote, Truncated: r.Truncated, DNSUS: r.DNS.Microseconds(), ConnectUS: r.Connect.Microseconds(),
		TLSUS: r.TLS.Microseconds(), FirstByteUS: r.FirstByte.Microseconds(), ResponseBody: append([]byte(nil), r.Body...)}
	r.VisitHeader(func(k, val []byte) { v.ResponseHeaders = append(v.ResponseHeaders, [2]string{string(k), string(val)}) })
	return v
}

func encodeEvidence(v *relay.Evidence) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte("{}") // strings and numbers only: cannot fail
	}
	return b
}

// test sends a test event: one attempt, whatever the webhook's state.
func (a *attempt) test(h *relay.Webhook, eventType, eventID string, data []byte) (*relay.Outcome, *relay.Evidence, error) {
	e := a.engine
	c, err := e.compile(h)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare webhook: %w", err)
	}
	now := e.opt.Now()
	ev := &relay.Event{Store: h.Store, ID: eventID, Type: eventType, CreatedAt: now.Unix(), AcceptedAt: now.UnixMilli(), Data: data}
	j := &job{item: newItem(ev, 1)}
	j.payload = j.body
	o := &relay.Outcome{Webhook: h.Ordinal, EventType: eventType, AcceptedAt: now.UnixMilli(), Node: e.opt.NodeID, Test: true, EventID: eventID}
	a.record(o, j, a.send(c, j, true, h.Timeout()))
	o.State = relay.Succeeded
	if o.Error != "" {
		o.State = relay.Dead // one attempt: it failed, and is in no queue
	}
	v := a.evidence()
	v.TestBody = j.payload
	o.Evidence = encodeEvidence(v)
	return o, v, nil
}
