package config

import (
	"math"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "0B": 0, "1B": 1, "64KiB": 64 << 10, "36MiB": 36 << 20, "1GiB": 1 << 30, "1025B": 1025, "1 MiB": 1 << 20,
		"8589934591GiB": (1<<33 - 1) << 30,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
		if again, err := ParseSize(want.String()); err != nil || again != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", want.String(), again, err, want)
		}
	}
	for _, text := range []string{"", "1", "36MB", "36mib", "36M", "-1B", "1.5GiB", "B", "MiB", "8589934592GiB", "9223372036854775808B", "1B/s", "0x10B", "1_000B"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
	if _, err := ParseSize(Size(math.MaxInt64).String()); err != nil {
		t.Error(err)
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]Rate{"0": 0, "0B/s": 0, "500B/s": 500, "1KiB/s": 1024} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", text, got, err, want)
		}
		if again, err := ParseRate(want.String()); err != nil || again != want {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", want.String(), again, err, want)
		}
	}
	for _, text := range []string{"", "500", "500B", "/s", "500B/m", "500kB/s"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %d, want an error", text, got)
		}
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 5 * time.Minute: "5m", 4 * time.Hour: "4h", 90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s",
		250 * time.Millisecond: "250ms", 10 * time.Hour: "10h", 10 * time.Second: "10s", 70 * time.Minute: "1h10m",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v is written as %s, want %s", d, got, want)
		}
		if again, err := time.ParseDuration(shortDuration(d)); err != nil || again != d {
			t.Errorf("%v is read back as %v, %v", d, again, err)
		}
	}
}

func TestNets(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "192.0.2.1": "192.0.2.1/32", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128", "::ffff:192.0.2.1": "192.0.2.1/32",
	} {
		if p, problem, _ := parseNet(text); problem != "" || p.String() != want {
			t.Errorf("parseNet(%q) = %v, %q; want %s", text, p, problem, want)
		}
	}
	for _, text := range []string{"", "10.0.0.1/8", "10.0.0.0/33", "fe80::1%eth0", "::ffff:10.0.0.0/104", "example.org"} {
		if p, problem, _ := parseNet(text); problem == "" {
			t.Errorf("parseNet(%q) = %v, want a problem", text, p)
		}
	}
}

func TestPins(t *testing.T) {
	const hexadecimal = "sha256:abababababababababababababababababababababababababababababababab"
	a, err := ParsePin(hexadecimal)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := ParsePin(a.String()); err != nil || a != b {
		t.Errorf("%s is read back as %s, %v", a, b, err)
	}
	for _, text := range []string{"", "sha256:", hexadecimal[7:], hexadecimal + "ab", "sha1:abab"} {
		if p, err := ParsePin(text); err == nil {
			t.Errorf("ParsePin(%q) = %s, want an error", text, p)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"recipients", "address", "idle", "idles"}
	for text, want := range map[string]string{"recipents": "recipients", "adress": "address", "Idle": "idle", "colour": "", "xyz": "", "": ""} {
		if got := nearest(text, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", text, got, want)
		}
	}
}
