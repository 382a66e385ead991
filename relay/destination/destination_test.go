package destination

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/omnisales/edgerelay/relay"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestPublicAddressesOnly(t *testing.T) {
	for _, s := range []string{"8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"} {
		if err := (Policy{}).Check(addr(s), nil); err != nil {
			t.Errorf("%s refused: %v", s, err)
		}
	}
	for _, s := range []string{
		"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1", "100.127.255.255",
		"192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "100::1", "5f00::1", "3fff::1",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::",
	} {
		err := (Policy{}).Check(addr(s), nil)
		var r *Refused
		if !errors.As(err, &r) {
			t.Errorf("%s allowed", s)
		}
	}
}

func TestOperatorAllows(t *testing.T) {
	allow, err := ParseAllow("10.0.0.0/8, 192.168.1.7,fd00::/8")
	if err != nil {
		t.Fatal(err)
	}
	p := Policy{Allow: allow}
	for s, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "64:ff9b::a01:203": true, "192.168.1.7": true, "192.168.1.8": false, "fd12::1": true, "127.0.0.1": false, "8.8.8.8": true} {
		if got := p.Check(addr(s), nil) == nil; got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	p = Policy{AllowLoopback: true}
	for s, want := range map[string]bool{"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true, "10.0.0.1": false, "0.0.0.0": false} {
		if got := p.Check(addr(s), nil) == nil; got != want {
			t.Errorf("loopback, %s: %v", s, got)
		}
	}
}

func TestWhitelistNarrowsAndNeverWidens(t *testing.T) {
	list, err := ParseWhitelist([]string{"203.0.113.0/24", "10.0.0.1", "8.8.8.8", "::ffff:9.9.9.0/120"})
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]bool{"8.8.8.8": true, "::ffff:8.8.8.8": true, "9.9.9.9": true, "8.8.4.4": false, "10.0.0.1": false, "203.0.113.5": false} {
		if got := (Policy{}).Check(addr(s), list) == nil; got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	for i, want := range []bool{true, true, false, false} {
		if got := (Policy{}).Unreachable(list[i]); got != want {
			t.Errorf("unreachable %s: %v", list[i], got)
		}
	}
	if _, err := ParseWhitelist([]string{"1.2.3.4", "nonsense"}); err == nil || !strings.Contains(err.Error(), "entry 2") {
		t.Errorf("got %v", err)
	}
}

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]Target{
		"https://your-app.com/webhooks/orders":  {Scheme: "https", Host: "your-app.com", Port: "443", Addr: "your-app.com:443", HostHeader: "your-app.com", RequestURI: "/webhooks/orders", TLS: true},
		"HTTP://LOCALHOST:3000":                 {Scheme: "http", Host: "localhost", Port: "3000", Addr: "localhost:3000", HostHeader: "localhost:3000", RequestURI: "/"},
		"http://127.0.0.1:8080/a%20b?x=1&y=%2F": {Scheme: "http", Host: "127.0.0.1", Port: "8080", Addr: "127.0.0.1:8080", HostHeader: "127.0.0.1:8080", RequestURI: "/a%20b?x=1&y=%2F", IP: addr("127.0.0.1")},
		"https://[2001:DB8::1]/":                {Scheme: "https", Host: "2001:db8::1", Port: "443", Addr: "[2001:db8::1]:443", HostHeader: "[2001:db8::1]", RequestURI: "/", TLS: true, IP: addr("2001:db8::1")},
		"http://a_b.example:80/ü?q=ü":           {Scheme: "http", Host: "a_b.example", Port: "80", Addr: "a_b.example:80", HostHeader: "a_b.example", RequestURI: "/%C3%BC?q=%C3%BC"},
	} {
		got, err := ParseURL(raw, false)
		if err != nil || *got != want {
			t.Errorf("%s:\n got %+v %v\nwant %+v", raw, got, err, want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for _, raw := range []string{
		"", "your-app.com/hook", "ftp://a.b/", "//a.b/", "http:///x", "http://", "mailto:a@b", "http://user:pw@a.b/", "http://@a.b/", "http://a.b/#x", "http://a.b#", "http://a b/", "http://a.b/\n", "http://a.b\\@c.d/",
		"http://2130706433/", "http://0177.0.0.1/", "http://0x7f.1/", "http://127.1/", "http://0x7f000001/", "http://1.2.3.4.5/", "http://1.2.3.256/", "http://a.0x1/", "http://127.0.0.1./", "http://a.b./", "http://.a/", "http://a..b/",
		"http://a.b:0/", "http://a.b:65536/", "http://a.b:/", "http://a.b:x/", "http://[fe80::1%25eth0]/", "http://[::1/", "http://ü.de/", "http://a%2eb/", "http://" + strings.Repeat("a", 64) + ".b/", "http://a.b/" + strings.Repeat("x", 2048),
	} {
		_, err := ParseURL(raw, false)
		var e *relay.Error
		if !errors.As(err, &e) || e.Field != "url" || e.Message == "" {
			t.Errorf("%q: %v", raw, err)
		}
	}
	if _, err := ParseURL("http://a.b/", true); err == nil {
		t.Error("http taken where https is required")
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"https://a.b/c?d", "http://[::1]:80/", "http://127.1/", "http://a.b:99999", "http://a@b/", "http://ü/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := ParseURL(raw, false)
		if err != nil {
			var e *relay.Error
			if !errors.As(err, &e) {
				t.Errorf("%T", err)
			}
			return
		}
		host, port, err := net.SplitHostPort(got.Addr)
		if err != nil || host != got.Host || port != got.Port {
			t.Errorf("%q: address %q", raw, got.Addr)
		}
		if got.RequestURI[0] != '/' {
			t.Errorf("%q: request URI %q", raw, got.RequestURI)
		}
		for _, s := range []string{got.RequestURI, got.HostHeader} {
			for i := range len(s) {
				if s[i] <= ' ' || s[i] >= 0x7f {
					t.Errorf("%q: %q would break the request", raw, s)
				}
			}
		}
	})
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::1"} {
		b := addr(s).As16()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		err := (Policy{}).Check(a, nil)
		u := a.Unmap()
		if err == nil && (u.IsLoopback() || u.IsPrivate() || u.IsLinkLocalUnicast() || u.IsMulticast() || u.IsUnspecified()) {
			t.Errorf("%s allowed", a)
		}
		if (Policy{Allow: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}}).Check(a, []netip.Prefix{netip.PrefixFrom(addr("192.0.2.77"), 32)}) == nil && u != addr("192.0.2.77") {
			t.Errorf("%s: a whitelist widened", a)
		}
	})
}
