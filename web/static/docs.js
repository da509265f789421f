// Requests are signed with a key that has no business in a browser: the page explains, it does not send.
window.addEventListener("load", () => {
  window.SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#api",
    deepLinking: true,
    supportedSubmitMethods: [],
    defaultModelsExpandDepth: 0,
    tryItOutEnabled: false,
  });
});
