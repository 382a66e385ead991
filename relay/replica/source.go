package replica

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

// source is a led partition for one term: it gathers outcomes into entries.
type source struct {
	p        *partition
	term     uint64
	cursor   atomic.Uint64
	moved    chan struct{} // the cursor moved
	sent     uint64        // the cursor of the last entry; gather's
	outcomes chan *relay.Outcome
	stop     chan struct{}
	wg       sync.WaitGroup
}

const (
	// outcomeWindow is the least time between two entries of outcomes: an
	// entry costs a sync however little it holds. Nobody waits for it but
	// the cursor and the evidence; an idle partition sends at once.
	outcomeWindow = 4 * time.Millisecond
	entryOutcomes = 1024
	// cursorLag is how long a cursor that no outcome carries may wait: events
	// that match nothing move it too, and expiry follows it.
	cursorLag = time.Second
)

func newSource(p *partition, term uint64) *source {
	s := &source{p: p, term: term, outcomes: make(chan *relay.Outcome, 4*entryOutcomes), moved: make(chan struct{}, 1), stop: make(chan struct{})}
	s.wg.Go(s.gather)
	return s
}

// close ends the gathering after what is queued has been proposed.
func (s *source) close() {
	close(s.stop)
	s.wg.Wait()
}

// Reader is the partition's committed state.
func (s *source) Reader() state.Reader { return s.p.reader() }

// Deleted says whether a webhook was deleted, as far as this node knows.
func (s *source) Deleted(webhook uint32) bool {
	id, err := s.p.replica.DeletedWebhook(webhook)
	if err != nil {
		s.p.replica.opt.Logger.Error("look for a deleted webhook", "error", err)
	}
	return id != ""
}

// SetCursor sets the cursor that the next entry carries.
func (s *source) SetCursor(sequence uint64) {
	s.cursor.Store(sequence)
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// Settle queues an outcome; it blocks while the queue is full, which is what
// slows the dispatcher down to what the disk takes.
func (s *source) Settle(o *relay.Outcome) {
	select {
	case s.outcomes <- o:
	case <-s.stop: // of a term that is over: it would be dropped anyway
	}
}

func (s *source) gather() {
	var last time.Time
	var lag <-chan time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var first *relay.Outcome
		select {
		case first = <-s.outcomes:
		case <-s.moved:
			if lag == nil && s.cursor.Load() > s.sent {
				lag = time.After(cursorLag)
			}
			continue
		case <-lag:
			lag = nil
			if s.cursor.Load() > s.sent {
				s.send(nil)
			}
			continue
		case <-s.stop:
			s.drain()
			return
		}
		if rest := outcomeWindow - time.Since(last); rest > 0 && len(s.outcomes) < entryOutcomes {
			timer.Reset(rest)
			select {
			case <-timer.C:
			case <-s.stop:
			}
		}
		last = time.Now()
		s.send(first)
	}
}

// drain proposes what is left: a planned stop records every outcome it knows.
func (s *source) drain() {
	for {
		select {
		case o := <-s.outcomes:
			s.send(o)
		default:
			return
		}
	}
}

// send makes one entry of the outcome, if any, and those queued behind it, and
// waits for it: the next one gathers meanwhile.
func (s *source) send(first *relay.Outcome) {
	var batch []*relay.Outcome
	size := 0
	if first != nil {
		batch, size = append(batch, first), len(first.Evidence)
	}
	for len(batch) < entryOutcomes && size < entryBytes {
		select {
		case o := <-s.outcomes:
			batch, size = append(batch, o), size+64+len(o.Evidence)
			continue
		default:
		}
		break
	}
	s.sent = s.cursor.Load()
	c := state.Settle{Stamp: s.p.replica.stamp(), Term: s.term, Cursor: s.sent, Outcomes: batch}
	data := c.Encode()
	for {
		proposal := s.p.group.Propose(data)
		if _, err := proposal.Wait(); !overloaded(err) {
			return // in any other case the term is over, and its outcomes with it
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.stop:
			return
		}
	}
}

func overloaded(err error) bool { return errors.Is(err, cluster.ErrOverloaded) }
