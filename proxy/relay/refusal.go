package relay

import (
	"slices"
	"strings"

	"mailcutover/mail"
)

// status is an enhanced code (RFC 3463 section 2) without its class.
type status struct{ subject, detail int }

// anyDetail stands for all details of a subject.
const anyDetail = -1

// grounds are refusals for good that are about the message.
type grounds struct {
	statuses []status
	codes    []int // where the enhanced code is missing or says nothing: X.0.0
}

// about is the whole classification: for each verb the refusals that are about the sender,
// the recipient or the content, and are passed on as they are. Whatever isn't here is about
// us, our session, or the state of the platform: the sender of the message can do nothing
// about that, and the next try may find it repaired (docs/architecture/promises.md, P5).
//
// Not here are, on purpose: 500 to 504 and X.5.z, a platform that doesn't understand us; 521,
// 530, 534, 535, 538 and 556, which are about the session or the host (RFC 5321 section 4.2.3,
// RFC 4954 section 6, RFC 7504); 555, a parameter that we could have left out; X.3.z but for
// the size, and X.4.z, the platform's own troubles, hop counts among them: the loop may be one
// between the platforms; X.1.2, X.1.3 and X.1.4, since the address is the table's; and of
// X.7.z what is about the peer that we are: relaying, authentication, SPF and block lists, so
// also X.7.1 to RCPT, which is Exchange's word for all of these ("Unable to relay", "your IP
// has been found on a block list") and Postfix' for "Relay access denied". It is Exchange's word
// before 2013, too, for a recipient that takes mail of some senders only; what proves that is
// in restricted and refusesSender.
var about = map[string]grounds{
	"MAIL": {
		statuses: []status{
			{1, 0},         // Exchange's sender filter: "Sender denied"
			{1, 7}, {1, 8}, // the sender's address, its domain
			{2, 3}, {3, 4}, // too long
			{6, anyDetail}, // content that was announced
			{7, 1},         // the sender is not wanted
			{7, 27},        // the sender's domain takes no mail, RFC 7505 section 4.2
			{7, 30},        // REQUIRETLS, which the message asks for, RFC 8689
		},
		codes: []int{552, 553}, // RFC 1870 section 6.1; RFC 5321 section 4.3.2
	},
	"RCPT": {
		statuses: []status{
			{1, 0}, {1, 1}, {1, 6}, // the recipient
			{1, 7}, {1, 8}, // the sender: Postfix' smtpd_delay_reject
			{1, 10},        // Exchange 2016: RecipientNotFound
			{2, anyDetail}, // its mailbox
			{3, 4},         // too long
			{6, anyDetail}, // content that was announced
			{7, 17}, {7, 18}, {7, 27}, {7, 30},
		},
		codes: []int{550, 551, 552, 553}, // RFC 5321 section 4.3.2
	},
	"DATA": {
		statuses: []status{{2, 3}, {3, 4}, {6, anyDetail}, {7, 0}, {7, 1}},
		codes:    []int{552},
	},
	".": {
		statuses: []status{
			{1, 0}, {1, 1}, {1, 6}, {1, 7}, {1, 8}, {1, 10},
			{2, anyDetail}, {3, 4}, {6, anyDetail},
			{7, 0}, {7, 1}, {7, 7}, // policy and content filters
			{7, 17}, {7, 18}, {7, 20}, {7, 21}, {7, 22}, {7, 26}, {7, 27}, {7, 29}, {7, 30},
			{7, 509},
		},
		codes: []int{550, 552, 553, 554}, // RFC 5321 section 4.3.2: policy, size, content
	},
}

// ourWords, in small letters, show that a refusal before the body is about the peer
// that we are, where its codes leave that open: Exim's "550 relay not permitted", Exchange's
// "550 5.7.1 Client does not have permissions to send as this sender", Postfix'
// "554 5.7.1 ... Client host rejected".
var ourWords = []string{"relay", "client", "authenticat"}

// restriction begins the text of an Exchange that has looked up the recipient and whom it
// takes mail from: "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required",
// RESOLVER.RST.NotAuthorized, RESOLVER.RST.SenderNotAuthenticatedForGroup and others.
const restriction = "resolver.rst."

// restricted reports whether a refusal says that the recipient takes no mail from this sender:
// by a code that means nothing else, or by Exchange's name for it.
func restricted(r *mail.Reply) bool {
	s := status{r.EnhancedCode[1], r.EnhancedCode[2]}
	return slices.Contains(restrictions, s) || s == status{7, 1} && strings.Contains(strings.ToLower(r.Message), restriction)
}

// restrictions are the codes of [restricted]: RFC 3463 section 3.8 and, of three digits,
// Exchange 2013 and later.
var restrictions = []status{{7, 2}, {7, 124}, {7, 129}, {7, 133}, {7, 134}, {7, 135}, {7, 136}}

// refusesSender reports whether "550 5.7.1" to RCPT, on a connection on which a recipient was
// taken, says that a group doesn't take mail from this sender. A platform that refuses
// who we are refuses every recipient; one that doesn't relay says so. What else it may be
// about a peer, it says of addresses and lists.
func refusesSender(r *mail.Reply) bool {
	if r.Code != 550 || r.EnhancedCode != [3]int{5, 7, 1} {
		return false
	}
	text := strings.ToLower(r.Message)
	return !slices.ContainsFunc(ourWords, func(w string) bool { return strings.Contains(text, w) }) &&
		!slices.ContainsFunc(peerWords, func(w string) bool { return strings.Contains(text, w) })
}

// peerWords are further words about a peer, in texts that an administrator of a block list
// may have written.
var peerWords = []string{" ip ", "block", "blacklist", "reputation", "spamhaus", "host", "http"}

// ours reports whether a platform's answer to a verb is a refusal for good that is not
// about the message.
func ours(verb string, r *mail.Reply) bool {
	if !mail.IsPermanent(r) {
		return false
	}
	if verb == "body" {
		verb = "."
	}
	g := about[verb] // nothing: greeting, EHLO and the like are never about a message
	s := status{r.EnhancedCode[1], r.EnhancedCode[2]}
	if (verb == "RCPT" || verb == ".") && restricted(r) {
		return slices.Contains(neverAbout, r.Code)
	}
	if verb != "." && (s == status{} || s == status{7, 0} || s == status{7, 1}) {
		text := strings.ToLower(r.Message)
		if slices.ContainsFunc(ourWords, func(w string) bool { return strings.Contains(text, w) }) {
			return true
		}
	}
	switch {
	case slices.Contains(neverAbout, r.Code):
		return true
	case s == status{}:
		return !slices.Contains(g.codes, r.Code)
	default:
		return !slices.Contains(g.statuses, s) && !slices.Contains(g.statuses, status{s.subject, anyDetail})
	}
}

// neverAbout are basic codes that are about commands and sessions, whatever enhanced code
// stands behind them.
var neverAbout = []int{500, 502, 503, 504, 521, 530, 534, 535, 538, 555, 556}

// replyOurs is what a sender gets instead of a refusal that is not about the message.
var replyOurs = mail.NewReply(451, 4, 3, 5, "The mailbox's platform does not take mail from here now, try again later")
