package cluster

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	crashSeed   = flag.Uint64("crash.seed", 0, "seed of the crash tests; 0: a new one")
	crashRounds = flag.Int("crash.rounds", 12, "power cuts a run")
)

var errLost = errors.New("lost or doubled")

// TestPowerCut cuts the power again and again, under load, and opens what the
// disk would hold: everything acknowledged is there, applied once.
func TestPowerCut(t *testing.T) {
	if err := powerCuts(t, faults{}, *crashRounds); err != nil {
		t.Fatal(err)
	}
}

// The safeguards are needed: without either, the same run goes wrong.
func TestPowerCutWithoutFlush(t *testing.T) {
	if err := powerCuts(t, faults{noFlush: true}, 40); !errors.Is(err, errLost) {
		t.Fatalf("the log was cut without a flush and nothing was noticed: %v", err)
	}
}

func TestPowerCutWithoutIndexCheck(t *testing.T) {
	if err := powerCuts(t, faults{noIndexCheck: true}, 40); !errors.Is(err, errLost) {
		t.Fatalf("entries were not checked against the applied index and nothing was noticed: %v", err)
	}
}

func powerCuts(t *testing.T, f faults, rounds int) error {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	fs := vfs.NewCrashableMem()
	acked := [2]map[uint64]bool{{}, {}}
	next := new(atomic.Uint64)
	for round := range rounds {
		node, groups, err := start(t, testOptions(t, fs), f, 2)
		if err != nil {
			return fmt.Errorf("%w: round %d does not start: %w", errLost, round, err)
		}
		for i, g := range groups {
			if err := check(t, g, acked[i]); err != nil {
				node.Close()
				return fmt.Errorf("round %d, group %d: %w", round, i, err)
			}
		}
		fs = cutUnderLoad(groups, fs, &acked, next, rng)
		if err := node.Close(); err != nil {
			return err
		}
	}
	t.Logf("%d acknowledged over %d power cuts", len(acked[0])+len(acked[1]), rounds)
	return nil
}

// cutUnderLoad proposes from several goroutines and clones the disk as it
// would be after a power cut at a random moment. Acknowledged counts only what
// was answered before.
func cutUnderLoad(groups []*Group, fs *vfs.MemFS, acked *[2]map[uint64]bool, next *atomic.Uint64, rng *rand.Rand) *vfs.MemFS {
	target := int64(200 + rng.IntN(1500))
	unsynced, cloneRNG := rng.IntN(101), rand.New(rand.NewPCG(rng.Uint64(), 2))
	var mu sync.Mutex
	var answered atomic.Int64
	reached := make(chan struct{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := next.Add(1)
				if _, err := groups[w%2].Propose(number(n)).Wait(); err != nil {
					continue
				}
				mu.Lock()
				acked[w%2][n] = true
				mu.Unlock()
				if answered.Add(1) == target {
					close(reached)
				}
			}
		})
	}
	<-reached
	mu.Lock() // what is acknowledged after the cut does not count
	before := [2]map[uint64]bool{maps.Clone(acked[0]), maps.Clone(acked[1])}
	clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: cloneRNG})
	mu.Unlock()
	close(stop)
	wg.Wait()
	*acked = before
	return clone
}

func check(t *testing.T, g *Group, acked map[uint64]bool) error {
	counts, sum := (&ledger{}).read(t, g.View())
	for n := range acked {
		if counts[n] == 0 {
			return fmt.Errorf("%w: %d was acknowledged and is gone (of %d)", errLost, n, len(acked))
		}
	}
	for n, times := range counts {
		if times != 1 {
			return fmt.Errorf("%w: %d was applied %d times", errLost, n, times)
		}
	}
	if sum != uint64(len(counts)) {
		return fmt.Errorf("%w: the merged sum is %d, of %d numbers", errLost, sum, len(counts))
	}
	return nil
}
