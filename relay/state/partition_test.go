package state

import (
	"testing"

	"github.com/omnisales/edgerelay/relay"
)

func TestAcceptOnceById(t *testing.T) {
	r := newRig(t)
	first := r.accept(r.event("a", 7))
	again := r.accept(r.event("a", 7, 8)).Accepted[0]
	if !again.Duplicate || again.Conflict || again.Matched != 1 || again.Sequence != first.Accepted[0].Sequence {
		t.Errorf("the same event again: %+v", again)
	}
	other := r.event("a", 7)
	other.Digest[0] = 9
	if got := r.accept(other).Accepted[0]; !got.Conflict || got.Duplicate {
		t.Errorf("another event under the id: %+v", got)
	}
	keyed := r.event("a", 7)
	keyed.Event.OrderingKey = "cart-1"
	if got := r.accept(keyed).Accepted[0]; got.Duplicate || got.Conflict {
		t.Errorf("the id under an ordering key: %+v", got)
	}
	foreign := r.event("a", 9)
	foreign.Event.Store = 2
	if got := r.accept(foreign).Accepted[0]; got.Duplicate || got.Conflict {
		t.Errorf("the id in another store: %+v", got)
	}
	twice := r.accept(r.event("b", 7), r.event("b", 7)).Accepted
	if twice[0].Duplicate || !twice[1].Duplicate {
		t.Errorf("twice in one entry: %+v", twice)
	}
	if found, err := FindEvents(r.rows, 1, "a"); err != nil || len(found) != 2 || found[0] != 1 {
		t.Errorf("FindEvents = %v, %v: the one without a key comes first", found, err)
	}
}

// A delivery's way through failure, dead letter and replay.
func TestLifeOfADelivery(t *testing.T) {
	r := newRig(t)
	s := r.accept(r.event("a", 7)).Accepted[0].Sequence
	r.settle(0, r.outcome(s, 7, relay.Retrying, 1))
	if d := r.delivery(s, 7); d.State != relay.Retrying || d.Attempts != 1 || d.NextAt != r.stamp+1000 {
		t.Fatalf("after a failure: %+v", d)
	}
	due := Timer{Due: r.stamp + 1000, Sequence: s, Webhook: 7}
	if timers, _ := Timers(r.rows, Timer{}, r.stamp+1000, 10); len(timers) != 1 || timers[0] != due {
		t.Fatalf("timers %v", timers)
	}
	r.settle(s, parked(r.outcome(s, 7, relay.Dead, 2)))
	letters := r.failures(7)
	if len(letters) != 1 || letters[0].Attempts != 2 || letters[0].Error != "status_500" || letters[0].ID != relay.FailureID(1, "", "a", 7) {
		t.Fatalf("dead letters %+v", letters)
	}
	if timers, _ := Timers(r.rows, Timer{}, r.stamp+9999, 10); len(timers) != 0 {
		t.Fatalf("timers of the dead: %v", timers)
	}
	replay := &Replay{Stamp: r.stamp, Webhook: 7, Failures: []string{letters[0].ID, "fail_unknown", letters[0].ID}}
	if got := r.apply(replay.Encode()); got.Replayed != 1 || len(got.Timers) != 1 {
		t.Fatalf("replay: %+v", got)
	}
	wrong := &Replay{Stamp: r.stamp, Webhook: 8, Failures: []string{letters[0].ID}}
	if got := r.apply(wrong.Encode()); got.Replayed != 0 {
		t.Fatal("another webhook's failure was replayed")
	}
	r.settle(s, parked(r.outcome(s, 7, relay.Dead, 1)))
	if l := r.failures(7); len(l) != 1 || l[0].State != relay.Dead || l[0].ID != letters[0].ID {
		t.Fatalf("a replay that dies returns to its place: %+v", l)
	}
	r.apply(replay.Encode())
	r.settle(s, parked(r.outcome(s, 7, relay.Succeeded, 1)))
	if d := r.delivery(s, 7); d.State != relay.Succeeded {
		t.Fatalf("after the replay: %+v", d)
	}
	if l := r.failures(7); l[0].State != relay.Succeeded {
		t.Fatalf("its letter: %+v", l)
	}
	c := r.stats(7)
	if c.Count(relay.Succeeded) != 1 || c.Count(relay.Dead) != 0 || c[Counter{Kind: CountAttempts}] != 4 || c[Counter{Kind: CountCreated}] != 1 {
		t.Fatalf("statistics %v", c)
	}
}

// An outcome counts once: not from a term that is over, not below the cursor,
// not of a row that is gone.
func TestOutcomesCountOnce(t *testing.T) {
	r := newRig(t)
	s := r.accept(r.event("a", 7, 8)).Accepted[0].Sequence
	stale := &Settle{Stamp: r.stamp, Term: r.term + 1, Cursor: s, Outcomes: []*relay.Outcome{r.outcome(s, 7, relay.Succeeded, 1)}}
	if got := r.apply(stale.Encode()); len(got.Settled) != 0 || r.status().Cursor != 0 {
		t.Fatal("an outcome of another term took effect")
	}
	r.settle(s, r.outcome(s, 7, relay.Succeeded, 1), r.outcome(s, 8, relay.Backlog, 0))
	if got := r.settle(s, r.outcome(s, 7, relay.Dead, 1)); len(got.Settled) != 0 {
		t.Fatal("a fresh outcome below the cursor took effect")
	}
	r.settle(s, parked(r.outcome(s, 8, relay.Succeeded, 1)))
	if got := r.settle(s, parked(r.outcome(s, 8, relay.Dead, 2))); len(got.Settled) != 0 {
		t.Fatal("an outcome of a row that is gone took effect")
	}
	if n := r.stats(8)[Counter{Kind: CountAttempts}]; n != 1 {
		t.Fatalf("%d attempts counted", n)
	}
	if r.settle(99); r.status().Cursor != s {
		t.Fatalf("the cursor passed the last event: %d", r.status().Cursor)
	}
}

func TestExpiry(t *testing.T) {
	r := newRig(t)
	r.accept(r.event("settled", 7), r.event("dead", 7), r.event("pending", 7), r.event("young", 7))
	r.settle(4, r.outcome(1, 7, relay.Succeeded, 1), r.outcome(2, 7, relay.Dead, 3), r.outcome(3, 7, relay.Retrying, 1), r.outcome(4, 7, relay.Succeeded, 1))
	r.stamp += 8 * dayMS
	r.apply((&Expire{Stamp: r.stamp, From: 1, Floor: 3, FailedBefore: r.stamp - 9*dayMS}).Encode())
	for id, want := range map[string]int{"settled": 0, "dead": 1, "pending": 1, "young": 1} {
		if found, _ := FindEvents(r.rows, 1, id); len(found) != want {
			t.Errorf("%s: %d events stay, want %d", id, len(found), want)
		}
	}
	if d := r.delivery(3, 7); d.State != relay.Dead {
		t.Fatalf("what was held past the retention is %v, not a dead letter", d.State)
	}
	letters := r.failures(7)
	if len(letters) != 2 || letters[0].EventID != "pending" || letters[0].Error != expiredError {
		t.Fatalf("dead letters %+v", letters)
	}
	if e, err := LoadEvent(r.rows, 3); err != nil || e.Data == nil {
		t.Fatal("a dead letter without its body cannot be replayed")
	}
	// Later both letters are old; sweeping them frees their events.
	r.apply((&Expire{Stamp: r.stamp, From: 1, Floor: 3, FailedBefore: r.stamp + 1}).Encode())
	if l := r.failures(7); len(l) != 0 {
		t.Fatalf("old dead letters stay: %+v", l)
	}
	for s := uint64(1); s <= 3; s++ {
		if e, _ := LoadHeader(r.rows, s); e != nil {
			t.Errorf("event %d stays", s)
		}
	}
	if got := r.accept(r.event("settled", 7)).Accepted[0]; got.Duplicate {
		t.Error("an id is remembered past the retention")
	}
}

func TestEvictionSparesWhatIsNeeded(t *testing.T) {
	r := newRig(t)
	r.accept(r.event("a", 7), r.event("b", 7), r.event("c", 7), r.event("open", 7))
	full := r.outcome(1, 7, relay.Succeeded, 1)
	full.Evidence = []byte("{}")
	r.settle(3, full, r.outcome(2, 7, relay.Dead, 3), r.outcome(3, 7, relay.Succeeded, 1))
	r.apply((&Evict{Stamp: r.stamp, Evidence: 99, Bodies: 99}).Encode())
	for s, want := range map[uint64]bool{1: false, 2: true, 3: false, 4: true} {
		e, err := LoadEvent(r.rows, s)
		if err != nil || e == nil {
			t.Fatalf("event %d is gone: %v", s, err)
		}
		if (e.Data != nil) != want {
			t.Errorf("event %d has its body: %v, want %v", s, e.Data != nil, want)
		}
	}
	if v, _ := LoadEvidence(r.rows, 1); v != nil {
		t.Error("evidence stays")
	}
	if got := r.accept(r.event("a", 7)).Accepted[0]; !got.Duplicate {
		t.Error("an id was forgotten")
	}
}

func TestDroppedWebhookLosesItsLetters(t *testing.T) {
	r := newRig(t)
	r.accept(r.event("a", 7, 8))
	r.settle(1, r.outcome(1, 7, relay.Dead, 3), r.outcome(1, 8, relay.Dead, 3))
	r.apply((&DropWebhook{Stamp: r.stamp, Webhook: 7}).Encode())
	if len(r.failures(7)) != 0 || len(r.failures(8)) != 1 {
		t.Fatalf("letters %v and %v", r.failures(7), r.failures(8))
	}
	r.check()
}

func TestUnknownCommandsStopTheReplica(t *testing.T) {
	r := newRig(t)
	for _, data := range [][]byte{nil, {commandVersion}, {commandVersion + 1, kindAccept}, {commandVersion, 0}, {commandVersion, kindAccept, 0xff}} {
		if _, err := r.p.Apply(r.rows, 1, data); err == nil {
			t.Errorf("%x was applied", data)
		}
	}
}

// Time in a group never runs backwards, whatever a new leader's clock says.
func TestTimeOnlyMovesForward(t *testing.T) {
	r := newRig(t)
	r.accept(r.event("a"))
	later := r.stamp
	r.stamp -= 3600_000
	if got := r.accept(r.event("b")); got.Stamp != later || got.Events[0].AcceptedAt != later {
		t.Fatalf("accepted at %d, after %d", got.Events[0].AcceptedAt, later)
	}
}
