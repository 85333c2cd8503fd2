package daemon

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// hooked is a receiver of webhooks that checks what Standard Webhooks asks receivers to.
type hooked struct {
	t      *testing.T
	secret string
	mu     sync.Mutex
	types  []string
	ids    map[string]int
}

func (h *hooked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	mac := hmac.New(sha256.New, []byte(h.secret))
	fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); err != nil || !slices.Contains(strings.Fields(r.Header.Get("webhook-signature")), want) {
		h.t.Errorf("signature %q, want %q", r.Header.Get("webhook-signature"), want)
	}
	var e struct{ Type, ID, Agency string }
	if err := json.Unmarshal(body, &e); err != nil || e.ID != r.Header.Get("webhook-id") {
		h.t.Errorf("event %s: %v", body, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids[e.ID]++; h.ids[e.ID] == 1 { // who gets one twice knows it by its id
		h.types = append(h.types, e.Type)
	}
	w.WriteHeader(http.StatusOK)
}

func (h *hooked) waits(what string, types ...string) {
	h.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		h.mu.Lock()
		got := slices.Clone(h.types)
		h.mu.Unlock()
		if slices.Equal(got, types) {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s: told %v, want %v", what, got, types)
		}
	}
}

// Two nodes on one Redis tell a real receiver and a real relay; when the one that tells stops,
// the other goes on.
func TestNoticesOfTwoNodes(t *testing.T) {
	const secret = "a secret of more than 24 bytes"
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	h := &hooked{t: t, secret: secret, ids: make(map[string]int)}
	receiver := httptest.NewTLSServer(h)
	defer receiver.Close()
	ca := write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})))
	letters := filepath.Join(dir, "letters")
	if err := os.Mkdir(letters, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir, letters} { // smtp-sink(1) runs as somebody else
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	sink := peers.StartSink(t, "-d", letters+"/letter.")
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf(`table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}
notices:
  webhooks: [{name: ops, url: %q, secret_file: %q, ca_file: %q, allow_loopback: true, events: ["agency.*"]}]
  mail: [{name: night, to: [night@example.org], language: de, relay: %q, tls: {policy: none}, events: ["agency.*"]}]`,
		redis.URL(), receiver.URL+"/secret-path", write("hook.secret", secret+"\n"), ca, sink.Addr)
	one := newBenchWith(t, more)
	two := one.second(t, more)
	h.waits("the agency and its mailboxes", "agency.added", "agency.mapping")
	if _, err := one.api.TestNotice(t.Context(), "ops", "does it arrive?"); err != nil {
		t.Errorf("test: %v", err)
	}
	h.waits("a test", "agency.added", "agency.mapping", "notice.test")

	toggle := func(b *bench) {
		t.Helper()
		_, _, err := b.set(table.Guard{}, func(a routing.Agency) (routing.Agency, error) {
			if a.Locked {
				return a.Unlock()
			}
			return a.Lock()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	toggle(one)
	so := []string{"agency.added", "agency.mapping", "notice.test", "agency.locked", "agency.closed"}
	h.waits("a lock", so...)
	one.until("a letter of the agency", func() bool {
		for _, l := range readLetters(t, letters) {
			if strings.Contains(l.subject, "Behörde health") && strings.Contains(l.text, "Behörde health wurde angelegt") {
				return true
			}
		}
		return false
	})

	one.stop(one.Daemon)
	toggle(two)
	h.waits("an end of the lock, after the first node stopped", append(so, "agency.unlocked", "agency.opened")...)
	two.until("nothing left to tell", func() bool { // the receiver has it before its sender has the answer
		list, err := two.api.Notices(t.Context())
		if err != nil || len(list.Channels) != 2 || list.Channels[0].Teller != "mx2.example" || list.Channels[0].To != receiver.URL {
			t.Fatalf("%+v, %v", list, err)
		}
		return list.Channels[0].Waiting == 0
	})
	for _, log := range []string{one.log.String(), two.log.String()} {
		if strings.Contains(log, secret) || strings.Contains(log, "secret-path") {
			t.Error("a secret is in the log")
		}
	}
}

// written is a letter as smtp-sink(1) wrote it, or as much of it as there is by now.
type written struct{ subject, text string }

// readLetters returns those that came, each as far as it is written.
func readLetters(t *testing.T, dir string) (all []written) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "letter.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(bytes.NewReader(text))
		if err != nil {
			continue // it is being written
		}
		if m.Header.Get("Auto-Submitted") != "auto-generated" || !strings.HasPrefix(m.Header.Get("Message-Id"), "<notice.") {
			t.Errorf("headers %v", m.Header)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
		if err != nil {
			t.Error(err)
		}
		body, _ := io.ReadAll(quotedprintable.NewReader(m.Body)) // up to where it is written
		all = append(all, written{subject, string(body)})
	}
	return all
}
