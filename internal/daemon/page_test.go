package daemon

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oauth2-proxy/mockoidc"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/test/peers"
)

// pageBench is a node with a page, and people with tokens and at an issuer.
type pageBench struct {
	*bench
	op   *mockoidc.MockOIDC
	base string
}

func newPageBench(t *testing.T) *pageBench {
	t.Helper()
	op, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = op.Shutdown() })
	b := &pageBench{bench: &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines)}, op: op}
	b.startPlatforms()
	// The page's address is in the redirection, so it must be known before.
	socket := fmt.Sprintf("127.0.0.1:%d", peers.Port(t))
	b.base = "http://" + socket
	text := fmt.Sprintf(`node: mx1.example
data: %s
approval: required
lab: true
listeners: [{id: mx, address: "127.0.0.1:0"}]
platforms:
  - {id: exchange, outside: {hosts: ["%s"]}}
  - {id: ox, outside: {hosts: ["%s"]}}
routing: {postmaster: anna@health.example}
page: {address: "%s", progress_key_env: PROGRESS}
admin:
  address: "127.0.0.1:0"
  tokens:
    - {name: olga, person: Olga, sha256: %x, roles: [operator, planner, viewer]}
    - {name: ada, person: Ada, sha256: %x, roles: [approver, viewer]}
    - {name: vera, person: Vera, sha256: %x, roles: [viewer]}
  sign_on:
    oidc: {issuer: "%s", client_id: "%s", client_secret_env: OIDC, redirect_url: "%s/signon/callback", claim: email}
    people:
      - {person: Ada, subjects: [ada@example.org], roles: [approver, viewer]}
      - {person: Olga, subjects: [olga@example.org], roles: [approver, viewer]}
`, filepath.Join(filepath.Dir(b.path), "data"), b.a.Addr(), b.b.Addr(), socket, hashOf("olga-token"), hashOf("ada-token"), hashOf("vera-token"), op.Issuer(), op.Config().ClientID, b.base)
	if err := os.WriteFile(b.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"PROGRESS=0123456789abcdef-progress", "OIDC=" + op.Config().ClientSecret}
	cfg, err := config.Load(b.path, environ)
	if err != nil {
		t.Fatal(err)
	}
	b.Daemon, err = Start(t.Context(), cfg, Options{Logger: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Environ: environ, Version: admin.Version{Version: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	d := b.Daemon
	t.Cleanup(func() { b.stop(d) })
	b.until("a lease", func() bool { return b.gate.Ready() == nil })
	b.api, err = admin.NewClient("http://"+d.AdminAddr().String(), "olga-token", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.AddAgency(t.Context(), admin.NewAgency{ID: "health", Source: "exchange", Target: "ox", Domains: []string{"health.example"}, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	list := "address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform\n" +
		"anna@health.example,6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2,health,user,,anna,,,,,\n"
	if _, err := b.api.Import(t.Context(), strings.NewReader(list), "test", false); err != nil {
		t.Fatal(err)
	}
	return b
}

func hashOf(token string) []byte {
	h := config.HashToken(token)
	return h[:]
}

// browser is somebody's.
type browser struct {
	t    *testing.T
	http *http.Client
	base string
}

func (b *pageBench) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return &browser{b.t, &http.Client{Jar: jar, Timeout: patience}, b.base}
}

func (b *pageBench) signedIn(token string) *browser {
	w := b.browser()
	if code, text := w.post("/signin", "token", token, "next", "/"); code != http.StatusOK || !strings.Contains(text, "Overview") {
		b.t.Fatalf("sign-in with %s: %d", token, code)
	}
	return w
}

func (w *browser) get(path string) (int, string) {
	w.t.Helper()
	res, err := w.http.Get(w.base + path)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.read(res)
}

func (w *browser) post(path string, pairs ...string) (int, string) {
	w.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	res, err := w.http.PostForm(w.base+path, form)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.read(res)
}

func (w *browser) read(res *http.Response) (int, string) {
	w.t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if p := res.Header.Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") {
		w.t.Errorf("%s has the policy %q", res.Request.URL, p)
	}
	return res.StatusCode, string(b)
}

var hidden = regexp.MustCompile(`name="(key|epoch|digest)" value="([^"]*)"`)

// fields returns the hidden fields of a page's last form that has them.
func fields(text string) map[string]string {
	out := make(map[string]string)
	for _, m := range hidden.FindAllStringSubmatch(text, -1) {
		out[m[1]] = m[2]
	}
	return out
}

// act fills in an act's form and sends it.
func (w *browser) act(name, typed, reason string) (int, string) {
	w.t.Helper()
	code, text := w.get("/agencies/health/" + name)
	if code != http.StatusOK {
		w.t.Fatalf("form of %s: %d\n%s", name, code, text)
	}
	f := fields(text)
	return w.post("/agencies/health/"+name, "key", f["key"], "epoch", f["epoch"], "typed", typed, "reason", reason)
}

func TestPageSwitchesWithFourEyes(t *testing.T) {
	b := newPageBench(t)
	olga, ada := b.signedIn("olga-token"), b.signedIn("ada-token")

	if code, text := olga.act("arm", "wrong", "because"); code != http.StatusUnprocessableEntity || !strings.Contains(text, "Nothing was done") {
		t.Errorf("arming with a wrong name is answered %d", code)
	}
	if code, _ := olga.act("arm", "health", " "); code != http.StatusUnprocessableEntity {
		t.Errorf("arming without a reason is answered %d", code)
	}
	if code, text := olga.act("arm", "health", "tonight"); code != http.StatusOK || !strings.Contains(text, "The agency is armed.") {
		t.Fatalf("arming is answered %d\n%s", code, text)
	}
	code, text := olga.act("cutover", "health", "wave 1")
	if code != http.StatusOK || !strings.Contains(text, "somebody else has to approve") {
		t.Fatalf("proposing is answered %d\n%s", code, text)
	}
	all, err := b.api.Proposals(t.Context(), true)
	if err != nil || len(all.Proposals) != 1 {
		t.Fatalf("proposals: %+v, error %v", all, err)
	}
	path := "/proposals/" + all.Proposals[0].ID
	if strings.Contains(text, path+"/approve") {
		t.Error("who has proposed is offered to approve")
	}
	// She tries it all the same.
	if code, _ := olga.post(path+"/approve", "key", strings.Repeat("k", 26), "digest", all.Proposals[0].Digest); code != http.StatusForbidden {
		t.Errorf("approving her own proposal is answered %d, want 403", code)
	}
	if _, text = ada.get("/"); !strings.Contains(text, "Olga has proposed") {
		t.Error("the overview doesn't say that there is something to approve")
	}
	_, text = ada.get(path)
	f := fields(text)
	if code, text := ada.post(path+"/approve", "key", f["key"], "digest", strings.Repeat("0", 64)); code < 400 {
		t.Errorf("approving another digest is answered %d\n%s", code, text)
	}
	if code, text := ada.post(path+"/approve", "key", f["key"]+"2", "digest", f["digest"]); code != http.StatusOK || !strings.Contains(text, "approved") {
		t.Fatalf("approving is answered %d\n%s", code, text)
	}
	_, text = olga.get(path)
	code, text = olga.post(path+"/start", "key", fields(text)["key"])
	if code != http.StatusOK || !strings.Contains(text, `class="steps"`) {
		t.Fatalf("starting is answered %d\n%s", code, text)
	}
	b.until("the agency on the target", func() bool {
		a, err := b.api.Agency(t.Context(), "health")
		return err == nil && a.Platform == "ox" && a.Open && a.Operation == ""
	})
	if _, text = ada.get("/agencies/health"); !strings.Contains(text, "on the target") || !strings.Contains(text, "wave 1") {
		t.Errorf("the agency's page doesn't show it:\n%s", text)
	}
	if h, err := b.api.AuditHead(t.Context()); err != nil || h.Number == 0 {
		t.Errorf("audit log: %+v, %v", h, err)
	}
}

func TestPageLockAndConfirm(t *testing.T) {
	b := newPageBench(t)
	olga, ada := b.signedIn("olga-token"), b.signedIn("ada-token")
	if code, text := olga.act("lock", "health", "wrong mail seen"); code != http.StatusOK || !strings.Contains(text, "locked") {
		t.Fatalf("locking is answered %d\n%s", code, text)
	}
	_, text := ada.get("/")
	link := regexp.MustCompile(`/emergencies/[^"]+`).FindString(text)
	if link == "" {
		t.Fatalf("the overview doesn't lead to the emergency:\n%s", text)
	}
	if _, text := olga.get(link); strings.Contains(text, "<textarea") || !strings.Contains(text, "somebody else") {
		t.Error("who did it is offered to confirm it")
	}
	_, text = ada.get(link)
	if code, text := ada.post(link, "key", fields(text)["key"], "reason", "seen it too"); code != http.StatusOK || !strings.Contains(text, "Confirmed.") {
		t.Fatalf("confirming is answered %d\n%s", code, text)
	}
	if left, err := b.api.Emergencies(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("emergencies left: %+v, %v", left, err)
	}
}

func TestPageRefuses(t *testing.T) {
	b := newPageBench(t)
	vera := b.signedIn("vera-token")
	if _, text := vera.get("/agencies/health"); strings.Contains(text, "/agencies/health/lock") {
		t.Error("who may only read is offered to lock")
	}
	if code, text := vera.act("lock", "health", "because"); code != http.StatusForbidden || !strings.Contains(text, "Nothing was changed.") {
		t.Errorf("locking without the role is answered %d\n%s", code, text)
	}
	stranger := b.browser()
	stranger.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, path := range []string{"/", "/agencies/health", "/operations", "/proposals", "/trace?by=rcpt&what=anna@health.example", "/alarms", "/nonsense"} {
		if code, text := stranger.get(path); code != http.StatusSeeOther || strings.Contains(text, "health") && !strings.Contains(path, "health") {
			t.Errorf("%s without signing in is answered %d", path, code)
		}
	}
	if code, _ := stranger.get("/?live"); code != http.StatusUnauthorized {
		t.Errorf("the live update without signing in is answered %d, want 401", code)
	}
	if code, _ := stranger.post("/agencies/health/lock", "typed", "health", "reason", "x", "key", strings.Repeat("k", 26)); code != http.StatusSeeOther {
		t.Errorf("locking without signing in is answered %d", code)
	}
	if code, _ := stranger.post("/signin", "token", "guess"); code != http.StatusForbidden {
		t.Errorf("a wrong token is answered %d, want 403", code)
	}
	// Another site's form, sent by the browser of somebody who is signed in.
	for name, header := range map[string][2]string{"by origin": {"Origin", "https://evil.example"}, "by fetch metadata": {"Sec-Fetch-Site", "cross-site"}} {
		req, err := http.NewRequest(http.MethodPost, b.base+"/signout", strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set(header[0], header[1])
		res, err := vera.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("another site's form, told %s, is answered %s, want 403", name, res.Status)
		}
	}
	if code, _ := vera.get("/"); code != http.StatusOK {
		t.Error("another site has signed her out")
	}
	if code, text := vera.get("/agencies/nobody"); code != http.StatusNotFound || !strings.Contains(text, "Not found") {
		t.Errorf("an agency that isn't there is answered %d", code)
	}
	if code, text := vera.get("/trace?by=rcpt&what=%3Cscript%3Ealert(1)%3C/script%3E"); code != http.StatusOK || strings.Contains(text, "<script>alert") {
		t.Errorf("a script in the question is answered %d, as it came", code)
	}
	a, err := b.api.Agency(t.Context(), "health")
	if err != nil || a.Locked {
		t.Errorf("the agency is %+v, error %v", a, err)
	}
}

// A form that is sent twice acts once.
func TestPageActsOnce(t *testing.T) {
	b := newPageBench(t)
	olga := b.signedIn("olga-token")
	if code, _ := olga.act("arm", "health", "tonight"); code != http.StatusOK {
		t.Fatal("arming", code)
	}
	_, text := olga.get("/agencies/health/cutover")
	f := fields(text)
	for range 2 {
		if code, text := olga.post("/agencies/health/cutover", "key", f["key"], "epoch", f["epoch"], "typed", "health", "reason", "wave 1"); code != http.StatusOK {
			t.Fatalf("proposing is answered %d\n%s", code, text)
		}
	}
	if all, err := b.api.Proposals(t.Context(), false); err != nil || len(all.Proposals) != 1 {
		t.Errorf("there are %d proposals, error %v, want 1", len(all.Proposals), err)
	}
	// The form of a record that has changed since does nothing.
	if code, text := olga.post("/agencies/health/lock", "key", f["key"]+"x", "epoch", "1.999", "typed", "health", "reason", "x"); code != http.StatusPreconditionFailed || !strings.Contains(text, "Nothing was changed.") {
		t.Errorf("an old form is answered %d, want 412", code)
	}
}

func TestPageIsLive(t *testing.T) {
	b := newPageBench(t)
	olga := b.signedIn("olga-token")
	olga.http.Timeout = 0
	res, err := olga.http.Get(b.base + "/agencies/health?live")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	events := make(chan string, 1000)
	go func() {
		defer close(events)
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			events <- s.Text()
		}
	}()
	wait := func(want string) {
		t.Helper()
		end := time.After(patience)
		for {
			select {
			case line, ok := <-events:
				if !ok {
					t.Fatalf("the stream ended before %q", want)
				}
				if strings.Contains(line, want) {
					return
				}
			case <-end:
				t.Fatalf("no %q in the stream", want)
			}
		}
	}
	wait("on the source")
	if _, err := b.api.Lock(t.Context(), "health", "", "look"); err != nil {
		t.Fatal(err)
	}
	wait("locked")
	olga.http.Timeout = patience
	if code, _ := olga.post("/signout"); code != http.StatusOK {
		t.Fatal("signing out", code)
	}
	wait("signed out")
}

// The staff's page needs no sign-in, and says nothing of persons, machines or other agencies.
func TestProgressPage(t *testing.T) {
	b := newPageBench(t)
	_, text := b.signedIn("olga-token").get("/agencies/health")
	link := regexp.MustCompile(`/progress/health/[\w-]+`).FindString(text)
	if link == "" {
		t.Fatal("no link to the progress page")
	}
	staff := b.browser()
	code, text := staff.get(link)
	if code != http.StatusOK || !strings.Contains(text, "You can read and send mail.") {
		t.Fatalf("the progress page is answered %d\n%s", code, text)
	}
	a, err := b.api.Agency(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.Lock(t.Context(), "health", a.Epoch, "Olga saw wrong mail of anna"); err != nil {
		t.Fatal(err)
	}
	b.until("the page to say closed", func() bool { _, text = staff.get(link); return strings.Contains(text, "closed for a while") })
	for _, secret := range []string{"Olga", "anna", "mx1.example", "exchange", "ox<", "127.0.0.1", "/agencies/", "wrong mail"} {
		if strings.Contains(text, secret) {
			t.Errorf("the progress page says %q", secret)
		}
	}
	for _, other := range []string{"/progress/health/", "/progress/health/AAAAAAAAAAAAAAAA", strings.Replace(link, "health", "other", 1), link + "x"} {
		if _, text := staff.get(other); strings.Contains(text, "E-mail of") {
			t.Errorf("%s is shown", other)
		}
	}
	if strings.Contains(b.log.String(), link) {
		t.Error("the link is in the log")
	}
}

func TestPageSpeaksGerman(t *testing.T) {
	b := newPageBench(t)
	olga := b.signedIn("olga-token")
	if code, text := olga.post("/language", "language", "de", "next", "/agencies/health"); code != http.StatusOK || !strings.Contains(text, "auf der Quelle") || !strings.Contains(text, `lang="de"`) {
		t.Errorf("the page in German is answered %d\n%s", code, text)
	}
	if code, _ := olga.post("/language", "language", "de", "next", "https://evil.example/"); code != http.StatusOK {
		t.Errorf("a language with another site's address is answered %d", code)
	}
}

// Who signs on at the issuer is the person of the configuration: the one whose token it is too.
func TestSignOnIsOnePerson(t *testing.T) {
	b := newPageBench(t)
	at := func(email string) *browser {
		t.Helper()
		b.op.QueueUser(&mockoidc.MockUser{Subject: email, Email: email, EmailVerified: true})
		w := b.browser()
		_, _ = w.get("/signon/begin")
		return w
	}
	olga := at("olga@example.org")
	if code, text := olga.get("/"); code != http.StatusOK || !strings.Contains(text, "Olga") {
		t.Fatalf("Olga at the issuer sees %d\n%s", code, text)
	}
	// By her token she proposes, by the issuer she is an approver: still she is one person.
	a, err := b.api.Agency(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := b.api.Lock(t.Context(), "health", a.Epoch, "look")
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.api.Propose(t.Context(), admin.NewProposal{Kind: "unlock", Agency: "health", ExpectedEpoch: locked.Agency.Epoch, Reason: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if code, text := olga.post("/proposals/"+p.ID+"/approve", "key", strings.Repeat("k", 26), "digest", p.Digest); code != http.StatusForbidden {
		t.Errorf("her own proposal, approved by another way in, is answered %d\n%s", code, text)
	}
	stranger := at("stranger@example.org")
	if _, text := stranger.get("/"); !strings.Contains(text, "Sign in") || strings.Contains(text, "Overview</h1>") {
		t.Error("a stranger whom the issuer knows is signed in")
	}
	// The API takes the issuer's token.
	s, err := b.op.SessionStore.NewSession("openid email", "n", &mockoidc.MockUser{Subject: "ada", Email: "ada@example.org", EmailVerified: true}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.IDToken(b.op.Config(), b.op.Keypair, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ada, err := admin.NewClient("http://"+b.AdminAddr().String(), token, nil)
	if err != nil {
		t.Fatal(err)
	}
	if me, err := ada.Me(t.Context()); err != nil || me.Person != "Ada" {
		t.Errorf("the API knows %+v, error %v, want Ada", me, err)
	}
	if strings.Contains(b.log.String(), token) {
		t.Error("the token is in the log")
	}
}
