//go:build !race

package wire_test

import (
	"testing"

	"github.com/omnisales/edgerelay/relay/deliver/wire"
)

// An attempt on a kept connection allocates nothing. (The race detector makes
// pools forget, so the test is left out under it.)
func TestReusedConnectionAllocatesNothing(t *testing.T) {
	s := serve(t, lean)
	c := newClient(t, local())
	req, resp := s.post(t), new(wire.Response)
	n := testing.AllocsPerRun(500, func() {
		if err := c.Do(req, resp); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations an attempt", n)
	}
}
