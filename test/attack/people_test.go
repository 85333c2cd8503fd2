package attack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"mailcutover/admin"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// as is the token of somebody with one role, who is called like it.
func as(role admin.Role) string { return token + "-" + string(role) }

// alsoOperator is an approver's token of the person who is the operator.
const alsoOperator = token + "-also-operator"

// people are the tokens of a configuration, in YAML, besides the one for everything.
func people() string {
	var b strings.Builder
	one := func(name, person, secret string, role admin.Role) {
		fmt.Fprintf(&b, "    - {name: %s, person: Person %s, sha256: %x, roles: [%s]}\n", name, person, sha256.Sum256([]byte(secret)), role)
	}
	for _, role := range admin.Roles() {
		one(string(role), string(role), as(role), role)
	}
	one("also-operator", string(admin.RoleOperator), alsoOperator, admin.RoleApprover)
	return b.String()
}

// call makes a call of the API, and decodes the answer into out, unless that is nil.
func (f *front) call(t *testing.T, secret, method, path, body string, out any) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+f.addrs["admin"]+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.HasPrefix(body, listHeader[:8]) {
		req.Header.Set("Content-Type", "text/csv")
	}
	resp, err := f.transport().RoundTrip(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return 0
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && out != nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		t.Errorf("%s %s: %d %q, %v", method, path, resp.StatusCode, text, err)
	}
	return resp.StatusCode
}

// TestPeople has what those can try who have a token, and who come to the node's disk.
func TestPeople(t *testing.T) {
	t.Parallel()
	f := start(t, setup{approval: "required"})
	rights(t, f)
	wrongLists(t, f)
	alone(t, f)
	twoAtOnce(t, f)
	head, err := f.api().AuditHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Stop()
	forgedLogs(t, f, head.Head)
	bareLineEndsInTheSpool(t, f)
}

// rights holds to A2: who may not is refused, the log says it, and nothing happens.
func rights(t *testing.T, f *front) {
	const reason = `{"reason":"canary"}`
	calls := map[string]struct{ path, body string }{
		"add":     {"/v1/agencies", `{"id":"canary","source":"exchange","target":"ox","reason":"canary"}`},
		"list":    {"/v1/mailboxes/import?reason=canary", listHeader},
		"lock":    {"/v1/agencies/exchange/lock", reason},
		"switch":  {"/v1/agencies/exchange/rollback", `{"reason":"canary","expected_epoch":"1.1","emergency":true}`},
		"propose": {"/v1/proposals", `{"kind":"cutover","agency":"exchange","expected_epoch":"1.1","reason":"canary"}`},
		"approve": {"/v1/proposals/none/approve", fmt.Sprintf(`{"digest":"%064d"}`, 0)},
		"confirm": {"/v1/emergencies/none/confirm", reason},
		"freeze":  {"/v1/freezes", reason},
		"reload":  {"/v1/config/reload", reason},
		"drop":    {"/v1/spool/drop", `{"reason":"canary","all":true}`},
	}
	var logged []string
	for role, may := range map[admin.Role][]string{
		admin.RoleViewer:   nil,
		admin.RolePlanner:  {"add", "list"},
		admin.RoleOperator: {"lock", "switch", "propose", "freeze", "drop"},
		admin.RoleApprover: {"approve", "confirm"},
		admin.RoleReleaser: nil,
		admin.RoleAdmin:    {"reload"},
	} {
		for name, c := range calls {
			if slices.Contains(may, name) || name == "propose" && (role == admin.RolePlanner || role == admin.RoleAdmin) { // other kinds
				continue
			}
			if code := f.call(t, as(role), http.MethodPost, c.path, c.body, nil); code != http.StatusForbidden {
				t.Errorf("A2 %s by the %s is answered %d", name, role, code)
			}
			logged = append(logged, fmt.Sprintf(`"path":%q,"code":403,"person":"Person %s"`, strings.Split(c.path, "?")[0], role))
		}
	}
	waitFor(t, "A2 all of it to be in the log", func() bool {
		log := f.Output()
		return !slices.ContainsFunc(logged, func(line string) bool { return !strings.Contains(log, line) })
	})
	list, err := f.api().Agencies(t.Context())
	if err != nil || len(list) != len(f.ids) {
		t.Errorf("A2 agencies %+v, %v", list, err)
	}
	for _, a := range list {
		if a.Locked || a.Epoch != "1.1" {
			t.Errorf("A2 agency %+v", a)
		}
	}
}

// wrongLists holds to A9: a list in which a row is wrong is refused as a whole, with the row.
func wrongLists(t *testing.T, f *front) {
	mapping := func() string {
		a, err := f.api().Agency(t.Context(), "exchange")
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := mapping()
	anna, victim := mailboxID("anna@exchange.example"), mailboxID("victim@exchange.example")
	const id = "11111111-2222-3333-4444-555555555555"
	for name, row := range map[string]string{
		"columns moved":            id + ";b@exchange.example;exchange;user;;;;;;;",
		"another's mailbox":        "anna@exchange.example;" + victim + ";exchange;user;;;;;;;",
		"another's name as alias":  "anna@exchange.example;" + anna + ";exchange;user;victim@exchange.example;;;;;;",
		"another's name as login":  "b@exchange.example;" + id + ";exchange;user;;victim@exchange.example;;;;;",
		"another's agency":         "anna@exchange.example;" + anna + ";ox;user;;;;;;;",
		"an agency that isn't":     "b@exchange.example;" + id + ";nobody;user;;;;;;;",
		"a domain that isn't ours": "b@evil.example;" + id + ";exchange;user;;;;;;;",
		"a formula":                "b@exchange.example;" + id + ";exchange;user;=cmd|' /C calc'!A0;;;;;;",
		"a line end in a cell":     "\"b\n@exchange.example\";" + id + ";exchange;user;;;;;;;",
		"look-alikes":              "\u0430nn\u0430@exchange.example;" + id + ";exchange;user;;;;;;;",
		"names that fold together": "b@exchange.example;" + id + ";exchange;user;B@EXCHANGE.EXAMPLE,victım@exchange.example;;;;;;",
		"the same row twice":       "new@exchange.example;" + mailboxID("new@exchange.example") + ";exchange;room;;;;;;;",
		"NUL":                      "b\x00@exchange.example;" + id + ";exchange;user;;;;;;;",
		"not UTF-8":                "b\xff@exchange.example;" + id + ";exchange;user;;;;;;;",
	} {
		good := "new@exchange.example;" + mailboxID("new@exchange.example") + ";exchange;user;;;;;;;\n"
		var p admin.Problem
		code := f.call(t, token, http.MethodPost, "/v1/mailboxes/import?reason=canary", listHeader+good+row+"\n", &p)
		if code != http.StatusBadRequest || !strings.Contains(fmt.Sprint(p.Errors, p.Detail), "line 3") && name != "not UTF-8" {
			t.Errorf("A9 %s: %d %+v", name, code, p)
		}
	}
	if after := mapping(); after != before {
		t.Errorf("A9 the agency is %s, before %s", after, before)
	}
}

// alone holds to A13: what one person did in an emergency is marked and alarmed, and stays so
// until another person has confirmed it, by whatever token.
func alone(t *testing.T, f *front) {
	var done admin.Acted
	if code := f.call(t, as(admin.RoleOperator), http.MethodPost, "/v1/agencies/ox/lock", `{"reason":"mixed up"}`, &done); code != http.StatusOK || done.Emergency == "" {
		t.Fatalf("A13 lock: %d %+v", code, done)
	}
	marked := func() bool {
		a, err := f.api().Agency(t.Context(), "ox")
		if err != nil {
			t.Fatal(err)
		}
		return a.Locked && len(a.Unconfirmed) == 1
	}
	waitFor(t, "A13 alarm", func() bool {
		var all json.RawMessage
		f.call(t, token, http.MethodGet, "/v1/alarms", "", &all)
		return strings.Contains(string(all), "emergency/")
	})
	path := "/v1/emergencies/" + done.Emergency + "/confirm"
	for _, secret := range []string{as(admin.RoleOperator), alsoOperator} {
		if code := f.call(t, secret, http.MethodPost, path, `{"reason":"canary"}`, nil); code != http.StatusForbidden || !marked() {
			t.Errorf("A13 confirmed by who did it: %d", code)
		}
	}
	if code := f.call(t, token, http.MethodPost, "/v1/proposals", `{"kind":"cutover","agency":"ox","expected_epoch":"1.2","reason":"canary"}`, nil); code != http.StatusConflict {
		t.Errorf("A13 a proposal before it is confirmed: %d", code)
	}
	if code := f.call(t, as(admin.RoleApprover), http.MethodPost, path, `{"reason":"I looked"}`, nil); code != http.StatusOK || marked() {
		t.Errorf("A13 confirmed by another: %d", code)
	}
}

// twoAtOnce holds to A5 and A6: of several calls at once for one agency one has an effect, those
// for another agency don't mind, and who hasn't seen what the agency is now is refused.
func twoAtOnce(t *testing.T, f *front) {
	for body, want := range map[string]int{
		`{"reason":"r"}`: http.StatusPreconditionRequired, `{"reason":"r","expected_epoch":"1.0"}`: http.StatusPreconditionFailed,
		`{"reason":"r","expected_epoch":"7.1"}`: http.StatusPreconditionFailed, `{"reason":"r","expected_epoch":"1e400"}`: http.StatusBadRequest,
		`{"reason":"r","expected_epoch":1.1}`: http.StatusBadRequest, `{"reason":"r","expected_epoch":"1.1","expected_epoch":"1.0"}`: http.StatusBadRequest,
	} {
		if code := f.call(t, token, http.MethodPost, "/v1/agencies/exchange/arm", body, nil); code != want {
			t.Errorf("A6 %s is answered %d, want %d", body, code, want)
		}
	}
	if code := f.call(t, token, http.MethodPost, "/v1/agencies/exchange/arm", `{"reason":"r","expected_epoch":"1.1"}`, nil); code != http.StatusOK {
		t.Fatalf("A5 arm: %d", code)
	}
	approved := func(kind, agency, epoch string) (start string) {
		var p admin.Proposal
		if code := f.call(t, token, http.MethodPost, "/v1/proposals", fmt.Sprintf(`{"kind":%q,"agency":%q,"expected_epoch":%q,"reason":"r"}`, kind, agency, epoch), &p); code != http.StatusCreated {
			t.Fatalf("A5 propose %s: %d %+v", kind, code, p)
		}
		if code := f.call(t, as(admin.RoleApprover), http.MethodPost, "/v1/proposals/"+p.ID+"/approve", fmt.Sprintf(`{"digest":%q}`, p.Digest), nil); code != http.StatusOK {
			t.Fatalf("A5 approve %s: %d", kind, code)
		}
		return "/v1/proposals/" + p.ID + "/start"
	}
	ways := []struct{ agency, start string }{
		{"exchange", approved("cutover", "exchange", "1.1")}, {"exchange", approved("cutover", "exchange", "1.1")},
		{"ox", approved("unlock", "ox", "1.2")}, {"ox", approved("unlock", "ox", "1.2")}, // alone has locked it
	}
	var mu sync.Mutex
	codes := make(map[string][]int) // by agency
	var calls sync.WaitGroup
	for i := range 12 {
		calls.Go(func() {
			way := ways[i%len(ways)]
			code := f.call(t, token, http.MethodPost, way.start, `{}`, nil)
			mu.Lock()
			defer mu.Unlock()
			codes[way.agency] = append(codes[way.agency], code)
		})
	}
	calls.Wait()
	for agency, all := range codes {
		done := 0
		for _, code := range all {
			switch {
			case code/100 == 2:
				done++
			case code != http.StatusConflict && code != http.StatusPreconditionFailed:
				t.Errorf("A5 %s: answered %d", agency, code)
			}
		}
		if done != 1 {
			t.Errorf("A5 %s: %d of %v had an effect", agency, done, all)
		}
	}
	waitFor(t, "A5 the cutover to end", func() bool {
		all, err := f.api().Operations(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		begun := slices.DeleteFunc(all.Operations, func(o admin.Operation) bool { return o.Step == "refused" })
		if len(begun) != 1 {
			t.Fatalf("A5 operations %+v", begun)
		}
		return begun[0].Ended
	})
	for _, id := range f.ids {
		if a, err := f.api().Agency(t.Context(), id); err != nil || a.Platform != "ox" || a.Locked {
			t.Errorf("A5 agency %+v, %v", a, err)
		}
	}
}

// forgedLogs holds to A10: of a log that isn't as it was written the first bad record is named.
func forgedLogs(t *testing.T, f *front, head string) {
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(f.dir, "data", "audit")
	verify := func(name string, change func(records [][]byte) [][]byte) string {
		dir := filepath.Join(f.dir, "audit-"+name)
		if err := os.CopyFS(dir, os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
		// The segment with the most records, line by line.
		var file string
		var most [][]byte
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if records := bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")); len(records) > len(most) {
				file, most = name, records
			}
		}
		if len(most) < 6 {
			t.Fatalf("the log has %d records", len(most))
		}
		most[len(most)-1] = append(most[len(most)-1], '\n')
		if err := os.WriteFile(file, bytes.Join(change(most), nil), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := exec.CommandContext(ctx, bin, "audit", "verify", dir, "--head", head).CombinedOutput()
		if good := name == "whole"; good != (err == nil) {
			t.Errorf("A10 %s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	if out := verify("whole", func(r [][]byte) [][]byte { return r }); !strings.Contains(out, "the log is whole\n") {
		t.Errorf("A10 whole: %s", out)
	}
	for name, change := range map[string]func([][]byte) [][]byte{
		"changed": func(r [][]byte) [][]byte { r[3] = bytes.Replace(r[3], []byte(`"`), []byte(`'`), 1); return r },
		"dropped": func(r [][]byte) [][]byte { return slices.Delete(r, 3, 4) },
		"swapped": func(r [][]byte) [][]byte { r[3], r[4] = r[4], r[3]; return r },
		"doubled": func(r [][]byte) [][]byte { return slices.Insert(r, 3, r[2]) },
	} {
		// The first segment begins with record 1, in one line each.
		if out := verify(name, change); !strings.Contains(out, "audit record 4") {
			t.Errorf("A10 %s: %s", name, out)
		}
	}
	if out := verify("cut", func(r [][]byte) [][]byte { return r[:len(r)-2] }); !strings.Contains(out, "audit record ") {
		t.Errorf("A10 cut: %s", out)
	}
}

// bareLineEndsInTheSpool holds to S16: of a message that lies in the spool with line ends that no
// listener lets in nothing leaves; it is put aside, and others go.
func bareLineEndsInTheSpool(t *testing.T, f *front) {
	store, err := spool.Open(spool.Options{Dir: filepath.Join(f.dir, "data", "spool"), Node: "node.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	put := func(address, body string) {
		id, err := routing.ParseMailboxID(mailboxID(address))
		if err != nil {
			t.Fatal(err)
		}
		from, err := mail.ParsePath("old@out.example", false)
		if err != nil {
			t.Fatal(err)
		}
		to, err := mail.ParsePath(address, false)
		if err != nil {
			t.Fatal(err)
		}
		in, err := store.Begin(spool.Envelope{Transaction: mail.NewTransactionID(), Client: mail.Client{Listener: "mx", Origin: mail.OriginOutside}, From: from})
		if err != nil {
			t.Fatal(err)
		}
		defer in.Discard()
		_, agency, _ := strings.Cut(strings.TrimSuffix(address, ".example"), "@")
		if _, err = io.WriteString(in, body); err == nil {
			err = in.Commit(t.Context(), []spool.Recipient{{Address: routing.Address(address), To: to, Agency: routing.AgencyID(agency), Mailbox: id, State: spool.StateHeld, Reason: "agency closed"}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const smuggled = "MAIL FROM:<evil@out.example>\r\nRCPT TO:<victim@exchange.example>\r\nDATA\r\nevil\r\n.\r\n"
	for _, end := range ends {
		if strings.Count(end, "\r\n") == strings.Count(end, "\r") && strings.Count(end, "\r") == strings.Count(end, "\n") {
			continue // what it has besides is NUL, and may pass
		}
		put("anna@exchange.example", "Subject: old\r\n\r\nbody"+end+smuggled)
		put("anna@exchange.example", "Subject: old\r\n\r\n"+strings.Repeat("a body with a file of its own\r\n", 4000)+end+smuggled)
	}
	put("victim@exchange.example", "Subject: honest\r\n\r\nold, too\r\n")
	put("anna@ox.example", "Subject: honest\r\n\r\nold, too\r\n")
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "S16 the honest ones to go, and the others to be put aside", func() bool {
		var all json.RawMessage
		f.call(t, token, http.MethodGet, "/v1/alarms", "", &all)
		var held admin.SpoolStatus
		f.call(t, token, http.MethodGet, "/v1/spool", "", &held)
		return strings.Contains(string(all), "spool-quarantine") && len(f.platforms["ox"].mail.Stored()) >= 2 && held.Total.Held+held.Total.Waiting == 0
	})
	// Both agencies are there by now.
	stored := f.platforms["ox"].mail.Stored()
	if len(stored) != 2 || strings.Contains(string(stored[0].Raw)+string(stored[1].Raw), "Subject: old") {
		t.Errorf("S16 ox has %d messages", len(stored))
	}
	if n := len(f.platforms["exchange"].mail.Stored()); n != 0 {
		t.Errorf("S16 exchange has %d messages", n)
	}
	if strings.Contains(f.heard(), "evil@out.example") {
		t.Error("S16 a platform has heard what was smuggled")
	}
}

// A14: without a password, or where it would cross the network in clear text, a node doesn't
// begin.
func TestNoStart(t *testing.T) {
	t.Parallel()
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ table, want string }{
		"without a password":  {`{url: "redis://127.0.0.1:1"}`, "table.redis.password_file"},
		"in clear text":       {`{url: "redis://redis.example.org", password_env: ATTACK_REDIS}`, "rediss://"},
		"a password in sight": {`{url: "rediss://:canary-secret@redis.example.org", password_env: ATTACK_REDIS}`, "table.redis.url"},
		"an empty one":        {`{url: "rediss://redis.example.org", password_env: ATTACK_NONE}`, "ATTACK_NONE"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "config.yaml")
		text := fmt.Sprintf(`node: node.example.org
data: %s
listeners: [{id: mx, protocol: smtp, address: "127.0.0.1:0", tls: {mode: none}}]
platforms:
  - {id: exchange, outside: {hosts: ["127.0.0.1:1"], tls: {policy: none}}}
  - {id: ox, outside: {hosts: ["127.0.0.1:1"], tls: {policy: none}}}
routing: {postmaster: postmaster@exchange.example}
table: {redis: %s}
`, filepath.Join(dir, "data"), c.table)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, bin, "serve", "--config", file)
		cmd.Env = append(os.Environ(), "ATTACK_REDIS=canary-secret", "ATTACK_NONE=")
		out, err := cmd.CombinedOutput()
		if ended := ctx.Err() == nil; !ended || err == nil || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "canary-secret") {
			t.Errorf("A14 %s: ended %t, %v, said %s; want %q", name, ended, err, out, c.want)
		}
		cancel()
		if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
			t.Errorf("A14 %s: the node has begun", name)
		}
	}
}
