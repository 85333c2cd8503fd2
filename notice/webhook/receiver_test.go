package webhook

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"mailcutover/test/peers"
)

// TestReceiverOfTheManual runs the receiver that docs/operations/notices.md shows on calls of a real
// Sender: a call is new once, known when it comes again, and refused when it was changed or is old.
func TestReceiverOfTheManual(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations/notices.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "<!-- run by notice/webhook -->\n")
	if !found {
		t.Fatal("the manual shows no receiver")
	}
	var script strings.Builder
	for line := range strings.Lines(rest) {
		code, is := strings.CutPrefix(line, "    ")
		if !is && strings.TrimSpace(line) != "" {
			break
		}
		if !is {
			code = "\n"
		}
		script.WriteString(code)
	}
	type call struct {
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
	}
	var calls []call
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		c := call{Headers: map[string]string{}, Body: string(body)}
		for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
			c.Headers[name] = r.Header.Get(name)
		}
		calls = append(calls, c)
	}))
	defer server.Close()
	const secret, former = "a secret of enough bytes, ok", "the former one, of enough bytes"
	at := time.Unix(1_700_000_000, 0)
	s, err := New(Options{URL: server.URL, Secrets: [][]byte{[]byte(secret), []byte(former)}, Timeout: time.Minute, AllowLoopback: true, AllowPlaintext: true, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if err := s.Send(t.Context(), event()); err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Minute)
	}
	text, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	script.WriteString(`
import json, sys
first, again = json.loads(sys.argv[1])
secret, former, now, seen = sys.argv[2].encode(), sys.argv[3].encode(), 1700000000, set()
def ask(call, now=now, secret=secret, seen=seen, **headers):
    return judge(secret, {**call["headers"], **headers}, call["body"].encode(), seen, now)
def want(what, is_, wanted):
    if is_ != wanted:
        sys.exit("%s: %s, want %s" % (what, is_, wanted))
want("another secret", ask(first, secret=b"x" * 30), "refused")
want("a call of an hour ago", ask(first, now=now + 3600), "refused")
want("a call of the future", ask(first, now=now - 3600), "refused")
want("an old call with a fresh time", ask(first, now=now + 3600, **{"webhook-timestamp": str(now + 3600)}), "refused")
want("an old call with another id", ask(first, **{"webhook-id": "another"}), "refused")
want("another text", ask({**first, "body": first["body"] + " "}), "refused")
want("the first attempt", ask(first), "new")
want("the same call", ask(first), "known")
want("the second attempt", ask(again, now=now + 60), "known")
want("who knows the former secret only", ask(first, secret=former, seen=set()), "new")
`)
	peers.Python(t, script.String(), string(text), secret, former)
}
