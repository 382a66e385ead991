package wire_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/omnisales/edgerelay/relay/deliver/wire"
	"github.com/omnisales/edgerelay/relay/destination"
)

func TestRefusedDestinations(t *testing.T) {
	s := serve(t, answers(ok200))
	resolver := names{
		"loop.test": {"127.0.0.1"}, "mapped.test": {"::ffff:127.0.0.1", "::ffff:10.0.0.1"}, "private.test": {"10.0.0.1", "192.168.3.4"},
		"meta.test": {"169.254.169.254"}, "zone.test": {"fe80::1%lo"}, "local.test": {"::1"},
	}
	c := newClient(t, wire.Options{Resolver: resolver})
	hosts := []string{"127.0.0.1"}
	for name := range resolver {
		hosts = append(hosts, name)
	}
	for _, host := range hosts {
		err, resp := fails(t, c, post(t, "http://"+host+":"+s.port+"/"), wire.CodeDestinationRefused)
		for _, inner := range resolver[host] {
			if strings.Contains(err.Detail, inner) {
				t.Errorf("%s: tells the address: %s", host, err)
			}
		}
		if resp.Remote != "" || resp.Connect != 0 {
			t.Errorf("%s was dialled: %q %v", host, resp.Remote, resp.Connect)
		}
	}
	if n := s.conns.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestAddressesAreTriedInOrder(t *testing.T) {
	s := serve(t, answers(ok200))
	// Nothing listens at 127.0.0.2 and .3; 10.0.0.1 is not allowed.
	resolver := names{
		"last.test": {"10.0.0.1", "127.0.0.2", "127.0.0.1"},
		"none.test": {"127.0.0.2", "127.0.0.3"},
		"some.test": {"127.0.0.1", "127.0.0.2"},
	}
	o := local()
	o.Resolver = resolver
	c := newClient(t, o)
	resp := do(t, c, post(t, "http://last.test:"+s.port+"/"))
	if resp.Remote != s.addr || resp.DNS <= 0 {
		t.Errorf("remote %q dns %v", resp.Remote, resp.DNS)
	}
	fails(t, c, post(t, "http://none.test:"+s.port+"/"), wire.CodeConnectionRefused)

	only := post(t, "http://some.test:"+s.port+"/")
	only.Whitelist = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	fails(t, c, only, wire.CodeConnectionRefused)
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1: the whitelist did not hold", n)
	}
}

func TestLookupFailures(t *testing.T) {
	o := local()
	o.Resolver = names{"empty.test": nil}
	c := newClient(t, o)
	for _, host := range []string{"unknown.test", "empty.test", "broken.test", "silent.test"} {
		err, _ := fails(t, c, post(t, "http://"+host+"/"), wire.CodeDNS)
		if strings.Contains(err.String(), "10.1.2.3") {
			t.Errorf("names the resolver: %s", err)
		}
	}
}

// secureServer is a TLS server whose certificate is valid for 127.0.0.1 and
// example.com.
func secureServer(t *testing.T, change func(*tls.Config)) (*httptest.Server, *x509.CertPool) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{}
	change(s.TLS)
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s, pool
}

func TestTLS(t *testing.T) {
	for name, change := range map[string]func(*tls.Config){
		"1.3": func(*tls.Config) {},
		"1.2": func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
	} {
		t.Run(name, func(t *testing.T) {
			s, pool := secureServer(t, change)
			o := local()
			o.RootCAs = pool
			c := newClient(t, o)
			for i := range 2 {
				resp := do(t, c, post(t, s.URL+"/"))
				if string(resp.Body) != `{"id":"evt_1"}` || resp.Reused != (i == 1) || (resp.TLS > 0) != (i == 0) {
					t.Errorf("%d: %q reused=%v tls=%v", i, resp.Body, resp.Reused, resp.TLS)
				}
			}
			s.CloseClientConnections()
			if resp := do(t, c, post(t, s.URL+"/")); resp.Reused {
				t.Error("reused a closed connection")
			}
		})
	}
}

func TestTLSRefusals(t *testing.T) {
	good, pool := secureServer(t, func(*tls.Config) {})
	old, oldPool := secureServer(t, func(c *tls.Config) {
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	})
	picky, pickyPool := secureServer(t, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
	plain := serve(t, func(p *peer) {
		p.say("HTTP/1.1 400 Bad Request\r\n\r\n")
		p.hold()
	})
	closing := serve(t, func(p *peer) { _, _ = p.r.ReadByte() })
	_, port, _ := net.SplitHostPort(good.Listener.Addr().String())
	for name, tc := range map[string]struct {
		url   string
		roots *x509.CertPool
	}{
		"unknown authority":  {good.URL, x509.NewCertPool()},
		"other name":         {"https://other.test:" + port + "/", pool},
		"old version":        {old.URL, oldPool},
		"client certificate": {picky.URL, pickyPool},
		"no tls":             {"https://" + plain.addr + "/", pool},
		"hangs up":           {"https://" + closing.addr + "/", pool},
	} {
		t.Run(name, func(t *testing.T) {
			o := wire.Options{
				Policy: destination.Policy{AllowLoopback: true}, RootCAs: tc.roots,
				Resolver: names{"other.test": {"127.0.0.1"}},
			}
			err, resp := fails(t, newClient(t, o), post(t, tc.url), wire.CodeTLS)
			if resp.TLS <= 0 || resp.Remote == "" {
				t.Errorf("phases %v %q", resp.TLS, resp.Remote)
			}
			t.Log(err)
		})
	}
}
