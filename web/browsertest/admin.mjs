// Does an admin's work with the keyboard, without JavaScript, and prints what a member then reads.
// The job is JSON on standard input:
//
//	{chromium, arguments, admin, member, key, base, path}
//
// admin and member are one-time links, key is an API key, and path is the member's page for admins.

import { text } from 'node:stream/consumers';
import { chromium } from 'playwright-core';

const job = JSON.parse(await text(process.stdin));
const browser = await chromium.launch({ executablePath: job.chromium, args: job.arguments, chromiumSandbox: false });
const pages = [];

// open signs a person in.
async function open(link) {
	const context = await browser.newContext({ javaScriptEnabled: false });
	const page = await context.newPage();
	pages.push(page);
	await page.goto(link);
	await reach(page, 'main form button');
	await send(page);
	return page;
}

// reach presses Tab until an element has the focus. There is no script in the page to ask, so the
// element is found by its state.
async function reach(page, selector) {
	const focused = page.locator(`${selector}:focus`);
	for (let i = 0; i < 150; i++) {
		if (await focused.count()) return;
		await page.keyboard.press('Tab');
	}
	throw new Error(`the keyboard does not reach ${selector} on ${page.url()}`);
}

// send presses Enter and waits for the next page.
async function send(page) {
	await Promise.all([page.waitForEvent('domcontentloaded'), page.keyboard.press('Enter')]);
}

// choose selects a radio button with the arrow keys.
async function choose(page, form, name, value) {
	await reach(page, `${form} input[name=${name}]`);
	for (let i = 0; i < 2 && !(await page.locator(`${form} input[value=${value}]:checked`).count()); i++) {
		await page.keyboard.press('ArrowDown');
	}
}

// limit sets a limit in a form.
async function limit(page, action, value) {
	const form = `form[action="${action}"]`;
	await choose(page, form, 'choice', 'limit');
	await reach(page, `${form} input[name=amount]`);
	await page.keyboard.press('ControlOrMeta+A');
	await page.keyboard.type(value);
	await send(page);
}

// consume uses units of the member through the API.
async function consume(quantity, key) {
	const answer = await fetch(`${job.base}/v1/consume`, {
		method: 'POST', headers: { authorization: `Bearer ${job.key}`, 'content-type': 'application/json' },
		body: JSON.stringify({ email: 'bob@example.com', quantity, idempotency_key: key }),
	});
	return answer.json();
}

async function main(page, path) {
	await page.goto(job.base + path);
	return (await page.locator('main').innerText()).replace(/\s+/g, ' ');
}

try {
	const out = { refusals: [] };
	const admin = await open(job.admin);
	const member = await open(job.member);
	const refused = async (name, quantity) => {
		const { reason, slack } = await consume(quantity, name);
		out.refusals.push({ name, reason, slack: slack?.text ?? '', usage: await main(member, '/usage') });
	};
	await main(admin, '/org');
	await limit(admin, '/org/spend-limit', '0.40');
	await limit(admin, '/org/member-limit', '101');
	await consume(101, 'first');
	await refused('default', 1);
	await main(admin, job.path);
	await limit(admin, `${job.path}/limit`, '500');
	await consume(1, 'second');
	await refused('organization', 1);
	await choose(admin, `form[action="${job.path}/role"]`, 'role', 'admin');
	await reach(admin, `form[action="${job.path}/role"] button`);
	await send(admin);
	await main(admin, job.path);
	await limit(admin, `${job.path}/limit`, '102');
	await refused('own', 1);
	out.org = await main(member, '/org');
	console.log(JSON.stringify(out));
} finally {
	await browser.close();
}
