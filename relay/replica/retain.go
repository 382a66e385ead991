package replica

import (
	"context"
	"time"

	"github.com/omnisales/edgerelay/relay/state"
)

const (
	retainEvery = time.Minute
	diskEvery   = 5 * time.Second
	// expireChunk is how many sequences an entry of expiry covers.
	expireChunk = 2000
	// droppedAfter is how long a deleted webhook's dead letters are kept.
	droppedAfter = 24 * time.Hour
	// diskReserve is the share of the disk below which nothing is accepted.
	diskReserve = 0.05
)

// retain lets go of what is past its retention or more than the disk should
// hold, on the partitions that this node leads.
func (r *Replica) retain() {
	disk, tick := time.NewTicker(diskEvery), time.NewTicker(retainEvery)
	defer disk.Stop()
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-disk.C:
			r.watchDisk()
		case <-tick.C:
			for _, p := range r.partitions {
				if p.term.Load() == 0 {
					continue
				}
				if err := r.retainPartition(p); err != nil {
					r.opt.Logger.Warn("retention is behind", "partition", p.id, "error", err)
				}
			}
		}
	}
}

func (r *Replica) watchDisk() {
	free, total, err := r.opt.FreeDisk()
	full := err == nil && float64(free) < diskReserve*float64(total)
	if full != r.diskFull.Swap(full) {
		r.opt.Logger.Warn("disk reserve", "accepting", !full, "free_bytes", free)
	}
}

func (r *Replica) retainPartition(p *partition) error {
	ctx, cancel := context.WithTimeout(context.Background(), retainEvery)
	defer cancel()
	view := p.group.View()
	status, err := state.LoadStatus(view)
	if err != nil {
		return err
	}
	at := r.opt.Now().Add(-r.opt.Retention).UnixMilli()
	sequence, number, ok, err := state.Before(view, at)
	if err != nil {
		return err
	}
	if !ok {
		sequence, number = status.Sequence+1, status.Number+1
	}
	if err := r.expire(ctx, p, status, at, sequence-1, number); err != nil {
		return err
	}
	if err := r.sweep(ctx, p, status, at); err != nil {
		return err
	}
	if err := r.dropDeleted(ctx, p); err != nil {
		return err
	}
	return r.makeRoom(ctx, p)
}

// expire moves the floor up to where the retention says, chunk by chunk.
func (r *Replica) expire(ctx context.Context, p *partition, status state.Status, at int64, floor, number uint64) error {
	floor = min(floor, status.Cursor)
	day := uint32(max(at, 0) / (24 * 3600 * 1000))
	for from := status.Expired + 1; from <= floor; from += expireChunk {
		c := state.Expire{Stamp: r.stamp(), From: from, Floor: min(from+expireChunk-1, floor), FailedBefore: at, Day: day, Evidence: number}
		if _, err := p.propose(ctx, c.Encode()); err != nil {
			return err
		}
	}
	return nil
}

// sweep revisits the events that stayed for their dead letters.
func (r *Replica) sweep(ctx context.Context, p *partition, status state.Status, at int64) error {
	for after := uint64(0); ; {
		sequences, err := state.ParkedAfter(p.group.View(), after, expireChunk)
		if err != nil || len(sequences) == 0 || sequences[0] > status.Expired {
			return err
		}
		last := min(sequences[len(sequences)-1], status.Expired)
		c := state.Expire{Stamp: r.stamp(), From: sequences[0], Floor: last, FailedBefore: at}
		if _, err := p.propose(ctx, c.Encode()); err != nil {
			return err
		}
		after = last
	}
}

// dropDeleted forgets the dead letters of webhooks deleted a day ago. It does
// so again after the day, until their rows are gone, since a delivery on its
// way is cancelled first.
func (r *Replica) dropDeleted(ctx context.Context, p *partition) error {
	dropped, err := state.DroppedWebhooks(r.meta.group.View(), r.opt.Now().Add(-droppedAfter).UnixMilli())
	if err != nil {
		return err
	}
	for _, webhook := range dropped {
		any, err := state.HasFailures(p.group.View(), webhook)
		if err != nil {
			return err
		}
		if !any {
			continue
		}
		c := state.DropWebhook{Stamp: r.stamp(), Webhook: webhook}
		if _, err := p.propose(ctx, c.Encode()); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom keeps the disk within RetentionBytes: a quarter of the evidence
// goes first; where there is hardly any, a tenth of the settled bodies.
func (r *Replica) makeRoom(ctx context.Context, p *partition) error {
	if r.opt.RetentionBytes == 0 || r.opt.Node.DiskUsage() <= r.opt.RetentionBytes {
		return nil
	}
	status, err := state.LoadStatus(p.group.View())
	if err != nil {
		return err
	}
	c := state.Evict{Stamp: r.stamp()}
	lower, upper := state.EvidenceSpan()
	used, err := p.group.Usage(lower, upper)
	if err != nil {
		return err
	}
	if used > 1<<20 {
		c.Evidence = status.Evidence + (status.Number-status.Evidence)/4 + 1
	} else {
		floor := max(status.Bodies, status.Expired)
		c.Bodies = floor + (status.Cursor-min(status.Cursor, floor))/10 + 1
	}
	_, err = p.propose(ctx, c.Encode())
	return err
}
