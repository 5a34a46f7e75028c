"use strict";
// The button with the id "motion" starts and stops all previews. They stand still for whoever asks for less motion.
{
  const button = document.getElementById("motion");
  const show = (paused) => {
    document.documentElement.classList.toggle("paused", paused);
    if (button) button.textContent = paused ? "Play previews" : "Pause previews";
  };
  show(matchMedia("(prefers-reduced-motion: reduce)").matches);
  if (button) button.addEventListener("click", () => show(!document.documentElement.classList.contains("paused")));
}
