package admin_test

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// to returns a recipient of agency health.
func to(address string, state spool.State) spool.Recipient {
	return spool.Recipient{Address: routing.Address(address), Agency: "health", State: state, Reason: "agency closed"}
}

// withDora adds agency health with a mailbox for dora, and returns its id.
func withDora(t *testing.T, n *admintest.Node) routing.MailboxID {
	t.Helper()
	addHealth(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+"dora@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	id, err := routing.ParseMailboxID(directoryID(1))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The spool is listed in pages, by every filter, in order, and without content.
func TestSpoolList(t *testing.T) {
	n := admintest.Start(t, nil)
	dora := withDora(t, n)
	var all []string
	for i := range 7 {
		rcpts := []spool.Recipient{to("dora@health.example", spool.StateQuarantined), to(fmt.Sprintf("r%d@health.example", i), spool.StateQuarantined)}
		rcpts[0].Mailbox = dora
		id := n.Put(t, "s@out.example", rcpts...)
		all = append(all, string(id)+"/0", string(id)+"/1")
	}
	n.Put(t, "s@out.example", spool.Recipient{Address: "scanner@health.example", State: spool.StateQuarantined})
	for _, size := range []int{1, 2, 3, 14, 15, 1000} {
		var got []string
		for after := ""; ; {
			page := want[admin.SpoolEntries](t, n, 200, "GET", fmt.Sprintf("/v1/spool/messages?agency=health&limit=%d&after=%s", size, after), "")
			if len(page.Messages) > size {
				t.Fatalf("page of %d has %d", size, len(page.Messages))
			}
			for _, e := range page.Messages {
				got = append(got, fmt.Sprintf("%s/%d", e.Transaction, e.Recipient))
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if !slices.Equal(got, all) {
			t.Errorf("pages of %d: %v, want %v", size, got, all)
		}
	}
	transaction, _, _ := strings.Cut(all[2], "/")
	for query, count := range map[string]int{
		"": 15, "mailbox=dora@health.example": 7, "mailbox=" + directoryID(1): 7, "mailbox=R3@health.example": 1, "mailbox=scanner@health.example": 1,
		"state=quarantined": 15, "state=held": 0, "agency=health&mailbox=scanner@health.example": 0,
		"transaction=" + transaction: 2, "transaction=" + transaction + "&mailbox=dora@health.example": 1,
	} {
		if got := want[admin.SpoolEntries](t, n, 200, "GET", "/v1/spool/messages?"+query, ""); len(got.Messages) != count {
			t.Errorf("%s: %d recipients, want %d", query, len(got.Messages), count)
		}
	}
	_, _, text := call(t, n, "GET", "/v1/spool/messages/"+transaction, "")
	if strings.Contains(text, "never shown") || !strings.Contains(text, `"from":"s@out.example"`) || !strings.Contains(text, `"mailbox":"`+directoryID(1)+`"`) {
		t.Error(text)
	}
	for _, query := range []string{"agency=nowhere", "mailbox=x", "transaction=1", "state=lost", "after=x", "after=0.1", "after=1.-1", "limit=0", "limit=1001", "bogus=1"} {
		if status, _, text := call(t, n, "GET", "/v1/spool/messages?"+query, ""); status != 400 && status != 404 {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
}

// The status says how much there is, by agency, and where it goes.
func TestSpoolStatus(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) {
		o.Adoptions = func() []admin.Adoption { return []admin.Adoption{{Directory: "/old", From: "mx2"}} }
		o.Troubles = func() []string { return []string{"the disk is slow"} }
	})
	withDora(t, n)
	began := time.Now()
	n.Put(t, "s@out.example", to("a@health.example", spool.StateQuarantined), to("b@health.example", spool.StateQuarantined))
	n.Put(t, "s@out.example", to("b@health.example", spool.StateQuarantined))
	n.Put(t, "s@out.example", spool.Recipient{Address: "scanner@health.example", State: spool.StateQuarantined})
	st := want[admin.SpoolStatus](t, n, 200, "GET", "/v1/spool", "")
	if st.Total.Messages != 3 || st.Total.Quarantined != 4 || st.Total.Bytes == 0 || st.Refusing != "" || st.Adopted || len(st.ID) != 32 || len(st.Adoptions) != 1 || st.Files == 0 {
		t.Errorf("%+v", st)
	}
	if len(st.Agencies) != 2 || st.Agencies[0].Agency != "" || st.Agencies[1].Agency != "health" || st.Agencies[1].Quarantined != 3 || st.Agencies[1].Messages != 2 {
		t.Errorf("agencies: %+v", st.Agencies)
	}
	if st.Oldest == nil || st.Oldest.Before(began.Add(-time.Second)) || !st.Agencies[1].Oldest.Equal(*st.Oldest) {
		t.Errorf("oldest %v", st.Oldest)
	}
	want[admin.SpoolRate](t, n, 200, "POST", "/v1/spool/rate", `{"platform":"ox","per_second":25,"reason":"r"}`)
	r := want[admin.SpoolRate](t, n, 200, "POST", "/v1/spool/rate", `{"platform":"ox","per_second":2.5,"reason":"r"}`)
	if r.Before == nil || *r.Before != 25 {
		t.Errorf("%+v", r)
	}
	st = want[admin.SpoolStatus](t, n, 200, "GET", "/v1/spool", "")
	if i := slices.IndexFunc(st.Lanes, func(l admin.Lane) bool { return l.Platform == "ox" }); i < 0 || st.Lanes[i].Rate != 2.5 {
		t.Errorf("lanes %+v", st.Lanes)
	}
	for _, body := range []string{`{"platform":"ox","per_second":-1,"reason":"r"}`, `{"platform":"gmail","per_second":1,"reason":"r"}`, `{"platform":"ox","per_second":1,"reason":" "}`, `{"platform":"ox","reason":"r"}`} {
		if status, _, text := call(t, n, "POST", "/v1/spool/rate", body); status != 400 {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	if ready := want[admin.Readiness](t, n, 200, "GET", "/readyz", ""); !ready.Degraded || !ready.Ready || len(ready.Spool) != 1 {
		t.Errorf("%+v", ready)
	}
}

// A platform that is down shows in its lane, with what waits for it.
func TestSpoolLaneDown(t *testing.T) {
	n := admintest.Start(t, nil)
	dora := withDora(t, n)
	r := to("dora@health.example", spool.StateHeld)
	r.Mailbox = dora
	n.Put(t, "s@out.example", r)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		st := want[admin.SpoolStatus](t, n, 200, "GET", "/v1/spool", "")
		if i := slices.IndexFunc(st.Lanes, func(l admin.Lane) bool { return l.Platform == "exchange" }); i >= 0 && st.Lanes[i].Down {
			if l := st.Lanes[i]; l.Backlog != 1 || l.Error == "" || l.Until == nil {
				t.Errorf("%+v", l)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not down: %+v", st.Lanes)
		}
	}
}

// Acts change what is named and nothing else, once under one key, and the log has who did
// it and why.
func TestSpoolActs(t *testing.T) {
	n := admintest.Start(t, nil)
	withDora(t, n)
	act := func(status int, name, body string, header ...string) admin.SpoolActed {
		t.Helper()
		return want[admin.SpoolActed](t, n, status, "POST", "/v1/spool/"+name, body, header...)
	}
	put := func(address string) mail.TransactionID {
		return n.Put(t, "s@out.example", to(address, spool.StateQuarantined))
	}
	first, second := put("a@health.example"), put("b@health.example")
	put("b@health.example")

	for _, name := range []string{"hold", "release", "retry", "drop"} {
		for _, body := range []string{
			`{"reason":"r"}`, `{"state":"held","reason":"r"}`, `{"all":true,"agency":"health","reason":"r"}`, `{"all":true}`, `{"all":true,"reason":""}`, `{"all":true,"reason":"  "}`,
			`{"message":"1","reason":"r"}`, `{"mailbox":"x","reason":"r"}`, `{"all":true,"state":"delivered","reason":"r"}`, `{"all":true,"reason":"r","force":true}`, `{}`,
		} {
			act(400, name, body)
		}
		act(404, name, `{"agency":"nowhere","reason":"r"}`)
		act(404, name, fmt.Sprintf(`{"message":%q,"reason":"r"}`, mail.NewTransactionID()))
		if status, _, _ := call(t, n, "POST", "/v1/spool/"+name, `{"all":true,"reason":"r"}`, "Authorization", ""); status != 401 {
			t.Errorf("%s without a token: %d", name, status)
		}
	}
	if st := want[admin.SpoolStatus](t, n, 200, "GET", "/v1/spool", ""); st.Total.Quarantined != 3 {
		t.Fatalf("something was changed: %+v", st.Total)
	}
	if got := act(200, "drop", `{"agency":"health","reason":"r","dry_run":true}`); got.Named != 3 || got.Changed != 0 || !got.DryRun {
		t.Errorf("%+v", got)
	}
	act(412, "drop", `{"agency":"health","reason":"r","expected_recipients":2}`)
	one := act(200, "drop", fmt.Sprintf(`{"message":%q,"reason":"r","dry_run":true}`, first))
	other := act(200, "drop", fmt.Sprintf(`{"message":%q,"reason":"r","dry_run":true}`, second))
	if one.Named != 1 || other.Named == 0 || one.Digest == other.Digest {
		t.Errorf("%+v and %+v", one, other)
	}
	act(412, "drop", fmt.Sprintf(`{"message":%q,"reason":"r","expected_digest":%q}`, first, other.Digest)) // of as many, but others
	body := fmt.Sprintf(`{"message":%q,"reason":"spam","expected_recipients":1,"expected_digest":%q}`, first, one.Digest)
	if got := act(200, "drop", body, "Idempotency-Key", "k"); got.Changed != 1 || got.Act != "drop" {
		t.Errorf("%+v", got)
	}
	if got := act(200, "drop", body, "Idempotency-Key", "k"); got.Changed != 1 {
		t.Errorf("the same answer, not %+v", got)
	}
	act(404, "drop", body) // without the key it is another call, and nothing is there any more
	if got := act(200, "release", `{"mailbox":"b@health.example","reason":"not spam"}`); got.Changed != 2 {
		t.Errorf("%+v", got)
	}
	m := want[admin.SpoolMessage](t, n, 200, "GET", "/v1/spool/messages/"+string(second), "")
	if m.Recipients[0].State != "held" || m.Recipients[0].Reason != "released by an operator: not spam (Anna Berg)" {
		t.Errorf("%+v", m.Recipients)
	}
	log := n.Log.String()
	for _, piece := range []string{`"act":"drop","person":"Anna Berg","reason":"spam","transaction":"` + string(first) + `"`, `"act":"release","person":"Anna Berg","reason":"not spam"`} {
		if !strings.Contains(log, piece) {
			t.Errorf("the log lacks %s", piece)
		}
	}
	if strings.Contains(log, "never shown") {
		t.Error("the log has content")
	}
	if st := want[admin.SpoolStatus](t, n, 200, "POST", "/v1/spool/resume", `{"reason":"new disk"}`); st.Refusing != "" {
		t.Errorf("%+v", st)
	}
	if status, _, _ := call(t, n, "POST", "/v1/spool/resume", `{"reason":" "}`); status != 400 {
		t.Errorf("resume without a reason: %d", status)
	}
}

func TestAdoptCall(t *testing.T) {
	n := admintest.Start(t, nil)
	dir := filepath.Join(t.TempDir(), "spool")
	s, err := spool.Open(spool.Options{Dir: dir, Node: "mx2.example"})
	if err != nil {
		t.Fatal(err)
	}
	adopt := func(status int, dir, from, reason string) admin.Adoption {
		t.Helper()
		return want[admin.Adoption](t, n, status, "POST", "/v1/spool/adopt", fmt.Sprintf(`{"directory":%q,"from":%q,"reason":%q}`, dir, from, reason))
	}
	adopt(409, dir, "mx2.example", "r") // in use
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	adopt(400, "spool", "mx2.example", "r")
	adopt(400, dir, "mx2.example", " ")
	adopt(400, dir, "", "r")
	adopt(400, dir+"x", "mx2.example", "r")
	adopt(400, t.TempDir(), "mx2.example", "r")
	adopt(412, dir, "mx3.example", "r")
	if a := adopt(202, dir+"/", "mx2.example", "r"); a.From != "mx2.example" || a.Directory != dir || a.ID != s.ID() {
		t.Errorf("%+v", a)
	}
}

// handOver writes a handover and its outcome into the ledger.
func handOver(t *testing.T, n *admintest.Node, id mail.TransactionID, from, messageID string, at time.Time, answers []ledger.Answer, rcpts ...ledger.Recipient) {
	t.Helper()
	ticket, err := n.Ledger.Intend(&ledger.Intent{
		Time: at, Transaction: id, Platform: "exchange", Host: "ex1.example.org", From: from, MessageID: messageID, Size: 2048, Recipients: rcpts,
	})
	if err != nil {
		t.Fatal(err)
	}
	if answers != nil {
		n.Ledger.Outcome(ticket, answers...)
	}
}

// A message's whole way: refused for one, put off and held for another, in doubt and then
// delivered for a third.
func TestTrace(t *testing.T) {
	n := admintest.Start(t, nil)
	withDora(t, n)
	at := func(name string) ledger.Recipient {
		return ledger.Recipient{Address: routing.Address(name + "@health.example"), Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 7}}
	}
	id := n.Put(t, "s@out.example", to("held@health.example", spool.StateQuarantined))
	now := time.Now()
	handOver(t, n, id, "s@out.example", "<m@out.example>", now.Add(time.Second),
		[]ledger.Answer{{Result: ledger.ResultRefused, Code: 550, Text: "5.1.1 unknown"}, {Result: ledger.ResultInDoubt}}, at("gone"), at("dora"))
	handOver(t, n, id, "s@out.example", "<m@out.example>", now.Add(2*time.Second), []ledger.Answer{{Result: ledger.ResultDelivered, Code: 250, Text: "2.0.0 ok"}}, at("dora"))
	other := mail.NewTransactionID()
	handOver(t, n, other, "", "<n@out.example>", now.Add(3*time.Second), []ledger.Answer{{Result: ledger.ResultDelivered, Code: 250, Text: "2.0.0 ok"}}, at("emil"))
	pending := mail.NewTransactionID()
	handOver(t, n, pending, "p@out.example", "<p@out.example>", now.Add(4*time.Second), nil, at("dora"))

	got := want[admin.Traces](t, n, 200, "GET", "/v1/trace?transaction="+string(id), "")
	if len(got.Messages) != 1 || len(got.Notes) != 0 {
		t.Fatalf("%+v", got)
	}
	m := got.Messages[0]
	var what []string
	for i, e := range m.Events {
		what = append(what, e.What)
		if i > 0 && e.Time.Before(m.Events[i-1].Time) && e.What != "refused" && e.What != "in doubt" {
			t.Errorf("%v before %v", e, m.Events[i-1])
		}
	}
	slices.Sort(what)
	if !slices.Equal(what, []string{"accepted", "delivered", "handed over", "handed over", "in doubt", "refused"}) {
		t.Errorf("events %v", what)
	}
	if m.From != "s@out.example" || !slices.Equal(m.Twice, []string{"dora@health.example"}) || m.Spool == nil || m.Spool.Recipients[0].State != "quarantined" {
		t.Errorf("%+v", m)
	}
	since, until := url.QueryEscape(now.Add(2500*time.Millisecond).Format(time.RFC3339Nano)), url.QueryEscape(now.Add(3500*time.Millisecond).Format(time.RFC3339Nano))
	for query, ids := range map[string][]mail.TransactionID{
		"message_id=m@out.example":         {id},
		"message_id=%3Cn@out.example%3E":   {other},
		"from=S@OUT.example":               {id},
		"from=%3C%3E":                      {other},
		"from=nobody@out.example":          nil,
		"rcpt=dora@health.example":         {pending, id},
		"rcpt=dora@health.example&limit=1": {pending},
		"rcpt=held@health.example":         {id},
		"rcpt=emil@health.example&since=" + since + "&until=" + until: {other},
		"rcpt=dora@health.example&since=" + since + "&until=" + until: nil,
	} {
		got := want[admin.Traces](t, n, 200, "GET", "/v1/trace?"+query, "")
		var found []mail.TransactionID
		for _, m := range got.Messages {
			found = append(found, mail.TransactionID(m.Transaction))
		}
		if !slices.Equal(found, ids) {
			t.Errorf("%s: %v, want %v", query, found, ids)
		}
		if got.More != strings.Contains(query, "limit=1") {
			t.Errorf("%s: more %v", query, got.More)
		}
	}
	if got := want[admin.Traces](t, n, 200, "GET", "/v1/trace?transaction="+string(pending), ""); got.Messages[0].Events[1].What != "pending" {
		t.Errorf("%+v", got)
	}
	for _, query := range []string{"", "rcpt=x", "transaction=1", "from=a@b.example&rcpt=a@b.example", "rcpt=a@b.example&since=yesterday", "rcpt=a@b.example&limit=0"} {
		if status, _, text := call(t, n, "GET", "/v1/trace?"+query, ""); status != 400 {
			t.Errorf("%q: %d %s", query, status, text)
		}
	}
}

// The ledger of an agency has a row for each of its recipients, within the time asked for.
func TestLedgerList(t *testing.T) {
	n := admintest.Start(t, nil)
	now := time.Now().Truncate(time.Millisecond) // the ledger keeps microseconds
	health := ledger.Recipient{Address: "dora@health.example", Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 7}}
	finance := ledger.Recipient{Address: "fred@finance.example", Agency: "finance"}
	for i := range 3 {
		handOver(t, n, mail.NewTransactionID(), "s@out.example", "<m@out.example>", now.Add(time.Duration(i)*time.Second),
			[]ledger.Answer{{Result: ledger.ResultDelivered, Code: 250, Text: "2.0.0 ok"}}, health, finance)
	}
	moment := func(d time.Duration) string { return url.QueryEscape(now.Add(d).Format(time.RFC3339Nano)) }
	for query, count := range map[string]int{
		"agency=health&since=" + moment(0):                                   3,
		"agency=health&since=" + moment(time.Second):                         2,
		"agency=health&since=" + moment(0) + "&until=" + moment(time.Second): 1,
		"agency=health&since=" + moment(0) + "&limit=2":                      2,
		"agency=police&since=" + moment(0):                                   0,
	} {
		got := want[admin.Deliveries](t, n, 200, "GET", "/v1/ledger?"+query, "")
		if len(got.Deliveries) != count || got.More != strings.Contains(query, "limit") {
			t.Errorf("%s: %+v", query, got)
		}
		for _, d := range got.Deliveries {
			if d.Agency != "health" || d.Epoch != "1.7" || d.Result != "delivered" || d.Recipient != "dora@health.example" || d.Code != 250 {
				t.Errorf("%+v", d)
			}
		}
	}
	for _, query := range []string{"", "agency=health", "since=" + moment(0), "agency=A+b&since=" + moment(0), "agency=health&since=now"} {
		if status, _, text := call(t, n, "GET", "/v1/ledger?"+query, ""); status != 400 {
			t.Errorf("%q: %d %s", query, status, text)
		}
	}
}
