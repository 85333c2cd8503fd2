package page

import (
	"net/http"
	"strings"
	"time"

	"mailcutover/admin"
)

// trace is for the help desk: what happened to a message, or where a name leads, in words and
// without content.
var trace = view{name: "trace", data: traceData}

type traceView struct {
	By, What string // as was asked
	Days     string
	Asked    bool
	Found    admin.Traces
	Route    *admin.Route
	Login    *admin.LoginRoute
	Sessions []admin.Session
	Silent   []admin.Missing // nodes whose sessions aren't among them
	Problem  string
}

// windows are how far back is looked, by the form's word.
var windows = map[string]time.Duration{"1": 24 * time.Hour, "7": 7 * 24 * time.Hour, "30": 30 * 24 * time.Hour, "all": 0}

func traceData(v *visit) (string, any, error) {
	q := v.r.URL.Query()
	out := traceView{By: q.Get("by"), What: strings.TrimSpace(q.Get("what")), Days: q.Get("days")}
	if _, ok := windows[out.Days]; !ok {
		out.Days = "7"
	}
	if out.What == "" {
		return "Trace", &out, nil
	}
	out.Asked = true
	ask := admin.TraceQuery{Limit: 50}
	if w := windows[out.Days]; w > 0 {
		ask.Since = time.Now().Add(-w)
	}
	var err error
	switch out.By {
	case "login":
		err = out.login(v)
	case "message_id":
		ask.MessageID = out.What
	case "from":
		ask.From = out.What
	case "transaction":
		ask.Transaction = out.What
	default:
		out.By, ask.Recipient = "rcpt", out.What
		if r, err := v.api.Route(v.ctx(), "address", out.What); err == nil {
			out.Route = &r
		}
	}
	if out.By != "login" {
		out.Found, err = v.api.Trace(v.ctx(), ask)
	}
	if err != nil {
		out.Problem = err.Error()
	}
	return "Trace", &out, nil
}

// login says where a login leads, and which sessions there are.
func (t *traceView) login(v *visit) error {
	r, err := v.api.RouteLogin(v.ctx(), t.What)
	if err != nil {
		return err
	}
	t.Login = &r
	s, err := v.api.Sessions(v.ctx(), admin.SessionFilter{Mailbox: t.What}, false, "", 50)
	if err != nil {
		return err
	}
	t.Sessions, t.Silent = s.Sessions, s.Missing
	return nil
}

// located is where a message lies.
type located struct {
	admin.Located
	Transaction string
	Problem     string
}

// locate looks into the mailboxes of a message's recipients. What is found is shown once: it is in
// no address that somebody could pass on.
func (p *Page) locate(w http.ResponseWriter, r *http.Request, v *visit) {
	out := located{Transaction: r.PostFormValue("transaction")}
	code := http.StatusOK
	var err error
	out.Located, err = v.api.Locate(v.ctx(), admin.LocateQuery{Transaction: out.Transaction, Reason: strings.TrimSpace(r.PostFormValue("reason"))})
	if err != nil {
		out.Problem, code = err.Error(), http.StatusConflict
	}
	p.render(w, code, &shown{Page: p, Language: v.lang, Title: v.lang.T("Where it lies"), Template: "located", Path: "/trace", Me: &v.id, Data: &out})
}
