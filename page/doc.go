// Package page is the web page of a node: what the people in charge see, and where they act.
//
// It shows nothing and does nothing by itself. Every view is made of answers of the node's API
// (package admin), and every act is one call of it, made in the name of who is signed in: with
// the same roles, the same four eyes, the same records in the audit log. What the API refuses
// is shown with its reason, and nothing was done then.
//
// It promises that no other site's page can act for somebody who is signed in (cookies are
// SameSite=Strict, and a request that changes something must come from the page itself); that
// a form that is sent twice acts once; that nothing is loaded from elsewhere, which the
// Content-Security-Policy makes the browser enforce; and that everything but the live update
// works without JavaScript. A progress page, for the staff of an agency, needs no sign-in: it
// says where the agency stands and names no person, mailbox, node or address.
//
// It refuses who isn't signed in, and a session whose token was taken out of the configuration.
// Sessions are in this process' memory: after a restart people sign in again.
//
// The daemon makes one Page, gives it a listener and calls Shutdown. All methods are safe for
// concurrent use. The page's texts are English in the templates; german.go has the German.
package page
