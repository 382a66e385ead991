package deliver

import (
	"math"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

// tend is the dispatcher's own goroutine: it reads from the state what the
// window has room for, moves what is stuck to the backlog and back, and takes
// the timers that are due.
func (d *Dispatcher) tend() {
	if err := d.findBacklogs(); err != nil {
		d.fault("find backlogs", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.kick:
		case <-timer.C:
		case <-d.quit:
			return
		}
		again, err := d.round()
		if err != nil {
			d.fault("read the partition", err)
			again = time.Second
		}
		timer.Reset(again)
	}
}

func (d *Dispatcher) fault(what string, err error) {
	d.engine.opt.Logger.Error("dispatch: "+what, "error", err)
}

// round does everything once and says when to look again at the latest.
func (d *Dispatcher) round() (time.Duration, error) {
	d.spill()
	if err := d.timers(); err != nil {
		return 0, err
	}
	if err := d.refill(); err != nil {
		return 0, err
	}
	if err := d.load(); err != nil {
		return 0, err
	}
	return d.nextRound(), nil
}

func (d *Dispatcher) nextRound() time.Duration {
	d.engine.mu.Lock()
	defer d.engine.mu.Unlock()
	now := d.engine.opt.Now()
	wait := time.Hour
	if d.nextDue != math.MaxInt64 {
		wait = min(wait, time.UnixMilli(d.nextDue).Sub(now))
	}
	for l := range d.watched {
		if l.until.After(now) {
			wait = min(wait, l.until.Sub(now))
		} else if !l.until.IsZero() {
			l.until = time.Time{}
			d.watch(l)
			d.engine.push(l)
			d.wake()
		}
	}
	if d.loadable() || len(d.spills) > 0 {
		return 0
	}
	if d.behind {
		wait = min(wait, spillAfter/4) // the window may be full of what is stuck
	}
	return max(wait, time.Millisecond)
}

func (d *Dispatcher) findBacklogs() error {
	webhooks, err := state.WaitingWebhooks(d.src.Reader())
	if err != nil {
		return err
	}
	d.engine.mu.Lock()
	defer d.engine.mu.Unlock()
	for _, w := range webhooks {
		l := d.lane(w)
		l.backlog = true
		d.watch(l)
	}
	return nil
}

// spill writes backlog rows: for deliveries whose lane has a backlog before
// them, for everything queued in a held lane, and, should the window be full,
// for what is stuck, attempts under way included.
func (d *Dispatcher) spill() {
	e := d.engine
	e.mu.Lock()
	jobs := d.spills
	d.spills = nil
	var flying []*job
	now := e.opt.Now()
	for l := range d.watched {
		if l.held {
			jobs = append(jobs, d.unqueue(l)...)
		}
	}
	if d.behind && d.full() && now.Sub(d.pressed) >= spillAfter/8 {
		d.pressed = now
		for _, l := range d.lanes {
			l.measure(now)
			if l.stuck(now) {
				jobs = append(jobs, d.unqueue(l)...)
			}
			flying = append(flying, l.longFlying(now)...)
		}
	}
	e.mu.Unlock()
	for _, j := range jobs {
		d.src.Settle(backlogOutcome(j.item, j.lane.webhook, j.parked))
	}
	for _, j := range flying {
		d.spillFlying(j)
	}
}

// unqueue empties a lane's queue. What has a row in the backlog already is
// only forgotten.
func (d *Dispatcher) unqueue(l *lane) (jobs []*job) {
	for l.queue.len() > 0 {
		j := l.queue.pop()
		d.queued--
		jobs = append(jobs, j)
	}
	return jobs
}

func (l *lane) longFlying(now time.Time) (jobs []*job) {
	for j := range l.flying {
		if !j.parked && !j.spilling && now.Sub(j.since) > spillAfter {
			j.spilling = true
			l.parked[j.sequence] = true
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// spillFlying gives a row to a delivery that is being attempted, so that the
// cursor can pass it. The attempt's outcome follows the row.
func (d *Dispatcher) spillFlying(j *job) {
	d.src.Settle(backlogOutcome(j.item, j.lane.webhook, false))
	d.engine.mu.Lock()
	j.spilling, j.parked = false, true
	final := j.final
	d.engine.mu.Unlock()
	if final != nil {
		final.Parked = true
		d.src.Settle(final)
	}
}

func backlogOutcome(it *item, webhook uint32, parked bool) *relay.Outcome {
	return &relay.Outcome{Sequence: it.sequence, Webhook: webhook, EventType: it.eventType, AcceptedAt: it.acceptedAt, State: relay.Backlog, Parked: parked}
}

// timersAtOnce bounds a read of due timers.
const timersAtOnce = 512

// timers takes the deliveries that are due.
func (d *Dispatcher) timers() error {
	for {
		e := d.engine
		now := e.opt.Now().UnixMilli()
		e.mu.Lock()
		due := d.direct
		d.direct = nil
		from := d.timerFrom
		reading := d.nextDue <= now || d.timerBound == (state.Timer{})
		if reading {
			d.timerBound = state.Timer{Due: now + 1}
			d.nextDue = math.MaxInt64
		}
		e.mu.Unlock()
		if !reading && len(due) == 0 {
			return nil
		}
		if reading {
			read, err := d.readTimers(from, now)
			if err != nil {
				return err
			}
			due = append(due, read...)
		}
		for _, t := range due {
			if err := d.due(t); err != nil {
				return err
			}
		}
	}
}

func (d *Dispatcher) readTimers(from state.Timer, now int64) ([]state.Timer, error) {
	read, err := state.Timers(d.src.Reader(), from, now, timersAtOnce)
	if err != nil {
		return nil, err
	}
	next := state.Timer{Due: now + 1}
	upcoming := int64(math.MaxInt64)
	if len(read) == timersAtOnce {
		next = read[len(read)-1]
		next.Webhook++ // the key after it; ordinals end far below the maximum
		upcoming = now
	} else if at, ok, err := state.NextTimer(d.src.Reader(), next); err != nil {
		return nil, err
	} else if ok {
		upcoming = at
	}
	d.engine.mu.Lock()
	d.timerFrom = next
	d.nextDue = min(d.nextDue, upcoming)
	d.engine.mu.Unlock()
	return read, nil
}

// due takes one delivery whose time has come, if its row still says so.
func (d *Dispatcher) due(t state.Timer) error {
	p, ok, err := state.LoadParked(d.src.Reader(), t.Sequence, t.Webhook)
	if err != nil || !ok || p.State == relay.Dead || p.State == relay.Backlog || p.Due != t.Due {
		return err
	}
	e, err := state.LoadEvent(d.src.Reader(), t.Sequence)
	if err != nil || e == nil {
		return err
	}
	it := newItem(e, 1)
	if !d.unpark(it, t.Webhook, p.Attempts) {
		d.src.Settle(backlogOutcome(it, t.Webhook, true))
	}
	return nil
}

// unpark brings a parked delivery into its lane; false where it has no place.
func (d *Dispatcher) unpark(it *item, webhook uint32, attempts int) bool {
	d.engine.mu.Lock()
	defer d.engine.mu.Unlock()
	l := d.lane(webhook)
	if l.parked[it.sequence] || l.gone[it.sequence] {
		return true
	}
	if l.held || len(l.parked) >= d.engine.bounds.laneParked {
		return false
	}
	l.add(&job{item: it, parked: true, attempts: attempts})
	return true
}

// refill reads backlogs whose lanes have become short.
func (d *Dispatcher) refill() error {
	e := d.engine
	e.mu.Lock()
	var short []*lane
	for l := range d.watched {
		if l.backlog && !l.blocked() && len(l.parked) < e.bounds.laneParked/2 {
			short = append(short, l)
		}
	}
	e.mu.Unlock()
	for _, l := range short {
		if err := d.refillLane(l); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dispatcher) refillLane(l *lane) error {
	e := d.engine
	e.mu.Lock()
	if l.rescan != 0 {
		l.after, l.rescan = min(l.after, l.rescan-1), 0
	}
	after, rows := l.after, l.rows
	l.gone = map[uint64]bool{}
	e.mu.Unlock()
	read, err := d.readBacklog(l, after)
	e.mu.Lock()
	defer e.mu.Unlock()
	l.gone = nil
	switch {
	case err != nil:
		return err
	case read > after:
		l.after = read
	case l.rows == rows:
		l.backlog = false // a row that is written from now on sets it again
		d.watch(l)
	}
	return nil
}

// readBacklog brings the next rows of a lane's backlog into its queue, and
// says up to where. Nothing was there if that is after itself.
func (d *Dispatcher) readBacklog(l *lane, after uint64) (uint64, error) {
	waiters, err := state.Waiting(d.src.Reader(), l.webhook, after, d.engine.bounds.laneParked/2)
	if err != nil || len(waiters) == 0 {
		return after, err
	}
	sequences, attempts := make([]uint64, len(waiters)), make(map[uint64]int, len(waiters))
	for i, w := range waiters {
		sequences[i], attempts[w.Sequence] = w.Sequence, w.Attempts
	}
	events, err := state.LoadEvents(d.src.Reader(), sequences)
	if err != nil {
		return after, err
	}
	for _, ev := range events {
		// It was read for a lane that was short: what has no place is held
		// since, and read again when the lane is free.
		if !d.unpark(newItem(ev, 1), l.webhook, attempts[ev.Sequence]) {
			d.engine.mu.Lock()
			d.rescan(l, ev.Sequence)
			d.engine.mu.Unlock()
			break
		}
	}
	return sequences[len(sequences)-1], nil
}

// loadAtOnce bounds a read of events into the window.
const loadAtOnce = 256

// load reads what follows the window from the state: a slice a round, or the
// backlogs would wait until everything is read.
func (d *Dispatcher) load() error {
	e := d.engine
	e.mu.Lock()
	after, ready := d.loaded, d.loadable()
	e.mu.Unlock()
	if !ready {
		return nil
	}
	events, open, err := state.Unsettled(d.src.Reader(), after, loadAtOnce)
	if err != nil {
		return err
	}
	items := make([]*item, len(events))
	for i, ev := range events {
		items[i] = newItem(ev, len(open[i]))
	}
	e.mu.Lock()
	for i, it := range items {
		for d.loaded+1 < it.sequence { // nothing stands there: it counts as settled
			d.enter(&item{sequence: d.loaded + 1})
		}
		for _, webhook := range open[i] {
			d.admit(&job{item: it}, webhook)
		}
		d.enter(it)
	}
	if d.loaded >= d.newest || len(items) == 0 {
		d.behind = false
	}
	moved := d.advance()
	cursor := d.cursor
	e.mu.Unlock()
	if moved {
		d.src.SetCursor(cursor)
	}
	return nil
}

func (d *Dispatcher) loadable() bool { return d.behind && !d.full() && !d.stopped }
