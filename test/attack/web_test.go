package attack

import (
	"fmt"
	"strings"
	"testing"
)

// web holds the API, the page and autoconfiguration to what comes without a right, and to bytes
// that are no request: A1, A8, A11, T12.
func web(t *testing.T, f *front) {
	bearer := "Authorization: Bearer " + token + "\r\n"
	for _, c := range []struct {
		name, id, say string
		codes         string // that may be answered, or "" for none
	}{
		{"no token", "admin", "GET /v1/agencies HTTP/1.1\r\nHost: x\r\n", "401"},
		{"a wrong one", "admin", "GET /v1/agencies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary-secret\r\n", "401"},
		{"in the URL", "admin", "GET /v1/agencies?token=" + token + "&access_token=" + token + " HTTP/1.1\r\nHost: x\r\n", "401"},
		{"as a cookie", "admin", "GET /v1/agencies HTTP/1.1\r\nHost: x\r\nCookie: token=" + token + "\r\n", "401"},
		{"twice", "admin", "GET /v1/agencies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer canary-secret\r\n" + bearer, "401 400"},
		{"pprof", "admin", "GET /debug/pprof/heap HTTP/1.1\r\nHost: x\r\n", "401 404"},
		{"vars", "admin", "GET /debug/vars HTTP/1.1\r\nHost: x\r\n" + bearer, "404"},
		{"another site", "admin", "POST /v1/agencies HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n" + bearer + "\r\n{}", "403"},
		{"a form", "admin", "POST /v1/agencies HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n" + bearer + "\r\n{}", "415"},
		{"depth", "admin", fmt.Sprintf("POST /v1/agencies HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n%s\r\n%s", bearer, strings.Repeat("[", 60000)), "400"},
		{"a body of 100 MB", "admin", "POST /v1/agencies HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n" + bearer + "\r\n" + strings.Repeat(" ", 2<<20), "413"},
		{"two lengths", "admin", "POST /v1/agencies HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n" + bearer, "400"},
		{"length and chunks", "admin", "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 401 404 405 415"},
		{"a chunk of 2^64", "admin", "POST /v1/agencies HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + bearer + "\r\nFFFFFFFFFFFFFFFFF\r\n", "400"},
		{"a blank before the colon", "admin", "GET /v1/agencies HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer " + token + "\r\n", "400"},
		{"a folded header", "admin", "GET /v1/agencies HTTP/1.1\r\nHost: x\r\nX: y\r\n " + bearer, "400 401"},
		{"NUL in a header", "admin", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n", "400"},
		{"no host", "admin", "GET /healthz HTTP/1.1\r\n", "400"},
		{"a header of a megabyte", "admin", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n", "431"},
		{"100,000 headers", "page", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 100_000), "431"},
		{"a line of a megabyte", "autoconfig", "GET /" + strings.Repeat("y", 1<<20) + " HTTP/1.1\r\n", "431 414 400"},
		{"CONNECT", "admin", "CONNECT evil.example:25 HTTP/1.1\r\nHost: evil.example:25\r\n" + bearer, "404 405 400 415"},
		{"an absolute URL", "page", "GET http://127.0.0.1:25/ HTTP/1.1\r\nHost: evil.example\r\n", "200 303 302 400 404 421"},
		{"the page without a session", "page", "GET /agencies/exchange HTTP/1.1\r\nHost: x\r\n", "303 302 401 403 404"},
		{"an act without a session", "page", "POST /agencies/exchange/cutover HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 8\r\n\r\nreason=x", "303 302 401 403 404 405"},
		{"a forged session", "page", "GET / HTTP/1.1\r\nHost: x\r\nCookie: session=" + strings.Repeat("A", 4000) + "; mailcutover=x; __Host-session=../../x\r\n", "303 302 200 401"},
		{"a domain that isn't served", "autoconfig", "GET /mail/config-v1.1.xml?emailaddress=a@evil.example HTTP/1.1\r\nHost: autoconfig.evil.example\r\n", "404 400 403"},
		{"an address that tries something", "autoconfig", "GET /mail/config-v1.1.xml?emailaddress=%22%3E%3Ccanary%2F%3E@exchange.example HTTP/1.1\r\nHost: autoconfig.exchange.example\r\n", "200 400 404"},
	} {
		f.request(t, c.name, c.id, c.say, c.codes)
	}
	// T12: ids are made by the server; whatever else names nothing, and no file.
	for _, id := range []string{"..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd", "....//....//etc/passwd", "a%2fb", "%00", "..%5c..%5cetc", "%252e%252e%252f", strings.Repeat("x", 300), "%ff%fe", "{id}", "-", "%0d%0aX: y"} {
		for _, path := range []string{"/v1/agencies/", "/v1/operations/", "/v1/spool/messages/", "/v1/proposals/", "/v1/trace/", "/v1/nodes/", "/v1/lists/", "/v1/"} {
			f.request(t, "T12 "+path+id, "admin", "GET "+path+id+" HTTP/1.1\r\nHost: x\r\n"+bearer, "400 404 405 301 307 308")
		}
		f.request(t, "T12 page "+id, "page", "GET /static/"+id+" HTTP/1.1\r\nHost: x\r\n", "400 404 303 302 301 307 308")
	}
	{
		if list, err := f.api().Agencies(t.Context()); err != nil || len(list) != len(f.ids) {
			t.Errorf("agencies: %+v, %v", list, err)
		}
	}
}

// request says a request on a connection of its own, and looks at the first line of the answer.
func (f *front) request(t *testing.T, name, id, say, codes string) {
	t.Helper()
	w, err := dial(f.addrs[id], stranger)
	if err != nil {
		t.Fatal(err)
	}
	defer w.conn.Close()
	if err := w.secure(f); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(say, "\r\n\r\n") {
		say += "Connection: close\r\n\r\n"
	}
	_ = w.send(say) // a server that hangs up meanwhile is seen below
	line, err := w.in.ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) < 2 || !strings.Contains(codes, words[1]) {
		t.Errorf("%s at %s: %q, %v; want one of %s", name, id, line, err, codes)
		return
	}
	body := make([]byte, 64<<10)
	n, _ := w.in.Read(body)
	if text := string(body[:n]); strings.Contains(text, "root:") || strings.Contains(text, token) || strings.Contains(text, "<canary/>") {
		t.Errorf("%s at %s: %q", name, id, text)
	}
}
