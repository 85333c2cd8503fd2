// Walks through the web page as people do: an operator with the keyboard alone, an approver with
// the mouse, a help desk, and an agency's staff on a phone. Each page is looked at by axe
// (WCAG 2.1 A and AA) in light and dark. A step that fails ends the walk with its reason.
//
// Its caller says by the environment where the page is (BASE), what tokens there are, which
// browser (CHROMIUM) and where pictures go (SHOTS).
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const { BASE, OPERATOR, APPROVER, CHROMIUM, SHOTS, PROGRESS } = process.env;
const axe = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const phone = { width: 360, height: 740 };
const desk = { width: 1280, height: 900 };

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
const problems = [];
let shots = 0;

function assert(ok, what) {
  if (!ok) throw new Error(what);
}

// person opens a browser of somebody's own; what it complains of, and what it asks of others, is
// a problem.
async function person(name, options = {}) {
  // The page's policy keeps axe out as it keeps others out; where it is looked at by axe, it is
  // laid aside, and everywhere else it holds.
  const context = await browser.newContext({ viewport: desk, locale: 'en-GB', ...options });
  context.setDefaultTimeout(90000); // the machine may be busy
  const page = await context.newPage();
  page.on('console', (m) => { if (m.type() === 'error' && !expected.some((e) => m.text().includes(e))) problems.push(`${name}: console: ${m.text()}`); });
  page.on('pageerror', (e) => problems.push(`${name}: ${e.message}`));
  page.on('request', (r) => { if (!r.url().startsWith(BASE) && !r.url().startsWith('data:')) problems.push(`${name}: asks ${r.url()}`); });
  return page;
}

// expected are complaints about answers that the walk wants to see.
const expected = ['status of 403', 'status of 422', 'status of 404'];

async function step(name, f) {
  try {
    await f();
    console.log(`ok ${name}`);
  } catch (e) {
    console.log(`FAILED ${name}: ${e.message}`);
    for (const c of browser.contexts()) for (const p of c.pages()) console.log(`${p.url()}\n${(await p.textContent('main').catch(() => '')).replace(/\s+/g, ' ')}`);
    await browser.close();
    process.exit(1);
  }
}

// look has axe look at a page in light and dark, and takes its picture.
async function look(page, name, schemes = ['light', 'dark']) {
  const state = await page.context().storageState();
  for (const colorScheme of schemes) {
    const size = page.viewportSize();
    const context = await browser.newContext({ storageState: state, viewport: size, colorScheme, bypassCSP: true, locale: 'en-GB' });
    context.setDefaultTimeout(90000);
    const copy = await context.newPage();
    await copy.goto(page.url());
    await copy.waitForSelector('main');
    await judge(copy, name, colorScheme);
    await context.close();
  }
}

// judge has axe look at what is shown. The page's policy must be laid aside.
async function judge(copy, name, colorScheme) {
  const size = copy.viewportSize();
  const wide = await copy.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wide > 0) problems.push(`${name}, ${colorScheme}, ${size.width} wide: ${wide} pixels stand out on the right`);
  await copy.evaluate(axe);
  const result = await copy.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }));
  for (const v of result.violations) problems.push(`${name}, ${colorScheme}: ${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).join(' | ').slice(0, 300)}`);
  if (SHOTS) await copy.screenshot({ path: `${SHOTS}/${String(++shots).padStart(2, '0')}-${name}-${size.width}-${colorScheme}.png`, fullPage: true });
}

async function signIn(page, token) {
  await page.goto(BASE + '/');
  await page.fill('#token', token);
  await page.click('main button');
  await page.waitForSelector('h1:has-text("Overview")');
}

// tabTo goes by the keyboard to what has this name.
async function tabTo(page, name) {
  for (let i = 0; i < 200; i++) {
    await page.keyboard.press('Tab');
    const here = await page.evaluate(() => {
      const e = document.activeElement;
      const label = e.labels && e.labels.length ? e.labels[0].textContent : '';
      return (label || e.textContent || '').replace(/\s+/g, ' ').trim();
    });
    if (here.startsWith(name)) return;
  }
  throw new Error(`no way by the keyboard to "${name}"`);
}

const olga = await person('operator');
const ada = await person('approver');

await step('a wrong token is refused, with a reason', async () => {
  await olga.goto(BASE + '/agencies/health');
  assert(new URL(olga.url()).pathname === '/signin', 'not led to sign in');
  await olga.fill('#token', 'guess');
  await olga.keyboard.press('Enter');
  await olga.waitForSelector('[role=alert]');
  await look(olga, 'signin');
});

await step('by the keyboard alone: sign in, find the agency, arm it', async () => {
  await olga.goto(BASE + '/signin');
  await olga.waitForFunction(() => document.activeElement.id === 'token'); // the field has the focus
  await olga.keyboard.type(OPERATOR);
  await olga.keyboard.press('Enter');
  await olga.waitForSelector('h1:has-text("Overview")');
  await olga.keyboard.press('Tab');
  assert(await olga.evaluate(() => document.activeElement.classList.contains('skip')), 'the first stop is not the way to the content');
  await olga.keyboard.press('Enter');
  await tabTo(olga, 'health');
  await olga.keyboard.press('Enter');
  await olga.waitForSelector('h1:has-text("health")');
  await tabTo(olga, 'Arm');
  await olga.keyboard.press('Enter');
  await olga.waitForSelector('h1:has-text("Arm: health")');
  await tabTo(olga, 'Why');
  await olga.keyboard.type('tonight');
  await tabTo(olga, "Type the agency's name");
  await olga.keyboard.type('health');
  await olga.keyboard.press('Enter');
  await olga.waitForSelector('text=The agency is armed.');
});

await step('the pages of an operator', async () => {
  for (const [path, name] of [['/', 'overview'], ['/agencies/health', 'agency'], ['/agencies/health/cutover', 'plan'], ['/agencies/health/lock', 'lock'], ['/operations', 'operations'], ['/alarms', 'alarms'], ['/trace?by=rcpt&what=anna@health.example', 'trace'], ['/nonsense', 'nothing']]) {
    await olga.setViewportSize(desk);
    await olga.goto(BASE + path);
    await look(olga, name);
    await olga.setViewportSize(phone);
    await look(olga, name, ['light']); // the colours are those of the desk
  }
  await olga.setViewportSize(desk);
});

let proposal;
await step('a cutover is proposed, and whoever proposes can not approve', async () => {
  await olga.goto(BASE + '/agencies/health/cutover');
  await olga.waitForSelector('text=The whole plan');
  await olga.fill('#reason', 'wave 1');
  await olga.fill('#typed', 'helth');
  await olga.click('form.stack button');
  await olga.waitForSelector('[role=alert]');
  await olga.fill('#typed', 'health');
  await olga.click('form.stack button');
  await olga.waitForSelector('text=somebody else has to approve');
  proposal = new URL(olga.url()).pathname;
  assert(await olga.locator('form[action$="/approve"]').count() === 0, 'the proposer is offered to approve');
});

await step('somebody else reads and approves', async () => {
  await signIn(ada, APPROVER);
  await ada.click('#needs li:has-text("utover") a:has-text("Read and approve")');
  await ada.waitForSelector('h2:has-text("What is to be done")');
  await look(ada, 'proposal');
  await ada.click('form[action$="/approve"] button');
  await ada.waitForSelector('text=Approved.');
});

await step('it is started, and goes by itself on the page until it is done', async () => {
  await olga.goto(BASE + proposal);
  await olga.click('form[action$="/start"] button');
  await olga.waitForSelector('ol.steps');
  await olga.waitForSelector('ol.steps li.done:has-text("done")', { timeout: 90000 }); // nobody loads the page again
  await look(olga, 'operation');
});

await step('mail is brought over, and the help desk asks where a message lies', async () => {
  await olga.goto(BASE + '/agencies/health');
  await olga.waitForSelector('#returns >> text=sweep');
  await olga.waitForSelector('#returns .tag:has-text("done")', { timeout: 120000 }); // by itself
  await olga.waitForSelector('#returns >> text=1 of 1 mailboxes done');
  await look(olga, 'agency-swept');
  const help = await person('help desk', { bypassCSP: true, storageState: await olga.context().storageState() });
  await help.goto(BASE + '/trace?by=message_id&what=sought@out.example');
  await help.click('summary:has-text("Where does it lie?")');
  await help.fill('article input[name=reason]', 'ticket 4711');
  await help.click('article form button');
  await help.waitForSelector('h1:has-text("Where it lies")');
  const text = (await help.textContent('main')).replace(/\s+/g, ' ');
  // It came before the cutover: to bring it over is the mover's, and here nobody did.
  assert(/ox holds the mailbox In none of 1 folders/.test(text) && /exchange inbox: INBOX/.test(text), text);
  assert(!text.includes('secret'), 'the subject is shown');
  await judge(help, 'located', 'light'); // it is shown once
});

await step('a wave is approved, started, answered, paused; the plan is stopped', async () => {
  await ada.goto(BASE + '/proposals');
  await ada.click('main a:has-text("wave first")');
  await ada.waitForSelector('h2:has-text("What is to be done")');
  const wants = await ada.locator('form[action$="/approve"] input[name=typed]').count();
  if (wants) await ada.fill('form[action$="/approve"] input[name=typed]', 'first');
  await ada.click('form[action$="/approve"] button');
  await ada.waitForSelector('text=Approved.');
  await olga.goto(ada.url().split('?')[0]);
  // Going on at once would take the request back.
  await Promise.all([olga.waitForResponse((r) => r.request().method() === 'POST'), olga.click('form[action$="/start"] button')]);
  await olga.goto(BASE + '/plan');
  await olga.waitForSelector('#waves >> text=running');
  await look(olga, 'plan-of-waves');
  await olga.goto(BASE + '/waves/first');
  await olga.waitForSelector('text=What keeps it from starting now');
  await olga.fill('ul.checks form.inline input[name=reason]', 'seen in the vault');
  await olga.click('ul.checks form.inline button[value=yes]');
  await olga.waitForSelector('text=seen in the vault');
  await look(olga, 'wave');
  await olga.setViewportSize(phone);
  await look(olga, 'wave', ['light']);
  await olga.setViewportSize(desk);
  await olga.fill('#reason', 'wait for the ministry');
  await olga.click('form[action$="/pause"] button');
  await olga.waitForSelector('#standing >> text=wait for the ministry');
  await olga.goto(BASE + '/plan');
  await olga.fill('#reason', 'wrong mail seen');
  await olga.click('form[action="/plan/stop"] button');
  await olga.waitForSelector('#stop >> text=The plan is stopped');
  await ada.goto(BASE + '/');
  await ada.waitForSelector('#needs >> text=The plan is stopped');
});

await step('the overview changes under the eyes of somebody else', async () => {
  await ada.goto(BASE + '/');
  await ada.waitForSelector('#agencies tr:has-text("health") >> text=on the target');
  await olga.goto(BASE + '/agencies/health/lock');
  await olga.fill('#reason', 'wrong mail seen');
  await olga.fill('#typed', 'health');
  await olga.click('button.danger');
  await olga.waitForSelector('text=The agency is locked.');
  await ada.waitForSelector('#needs >> text=A second person has to confirm it', { timeout: 90000 });
  await look(ada, 'overview-emergency');
  await ada.click('#needs a:has-text("Look and confirm")');
  await look(ada, 'emergency');
  await ada.fill('#reason', 'seen it too');
  await ada.click('form.stack button');
  await ada.waitForSelector('text=Confirmed.');
});

await step("the agency's staff, on a phone, in German, without signing in", async () => {
  const staff = await person('staff', { viewport: phone, locale: 'de-DE' });
  await staff.goto(BASE + PROGRESS);
  await staff.waitForSelector('text=vorübergehend geschlossen');
  await look(staff, 'progress');
});

await step('the page works without JavaScript', async () => {
  const plain = await person('without JavaScript', { javaScriptEnabled: false });
  await signIn(plain, OPERATOR);
  await plain.click('#agencies a:has-text("health")');
  await plain.waitForSelector('text=locked');
});

await step('in German', async () => {
  await olga.goto(BASE + '/');
  await olga.click('button[name=language]');
  await olga.waitForSelector('h1:has-text("Übersicht")');
  await look(olga, 'overview-german');
  assert(await olga.getAttribute('html', 'lang') === 'de', 'the page does not say that it is German');
});

await step('signing out ends it', async () => {
  await olga.click('header form[action="/signout"] button');
  await olga.waitForSelector('#token');
  await olga.goto(BASE + '/agencies/health');
  assert(new URL(olga.url()).pathname === '/signin', 'still signed in');
});

await browser.close();
for (const p of problems) console.log(`PROBLEM ${p}`);
process.exit(problems.length > 0 ? 1 : 0);
